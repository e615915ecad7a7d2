"""The recipes of CONTRIBUTING.md, followed to the letter in a copy of the checkout.

A recipe is its fenced blocks, in order; what stands behind the language says what to do with one:

- `diff FILE`: the change to make; hunks are parted by `@@`, and what a hunk looks for stands once
  in the file.
- `markdown FILE.ipynb`, `python FILE.ipynb`: the next cell of a notebook; `markdown exercise NAME
  in FILE.ipynb`: the cell that stands for an exercise; `json metadata of FILE.ipynb`: that.
- `python new file FILE`: a file.
- `sh`, `sh fails`: commands to run, and whether the last one passes; each line of a `text` block
  after them stands in what they print.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hub_server import serve_hub

from qwqlab import paths
from qwqlab.models import requantize

BLOCK = re.compile(r"(?ms)^```(\w+) ?([^\n]*)\n(.*?)^```$")
EXERCISE = re.compile(r"exercise (\w+) in (\S+)")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, what stands behind that, and its text."""

    language: str
    about: str
    text: str


def read_recipe(title: str) -> list[Block]:
    """The blocks of the section of that title."""
    text = (paths.CHECKOUT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    prose = BLOCK.sub(lambda block: " " * len(block[0]), text)  # a block may hold headings
    begin = prose.index(f"\n### {title}\n") + 1
    end = re.compile(r"(?m)^#{2,3} ").search(prose, begin + 1)
    section = text[begin : end.start() if end else None]
    blocks = [Block(*found) for found in BLOCK.findall(section)]
    assert blocks, title
    return blocks


def apply_diff(file: Path, diff: str, *, backwards: bool = False) -> None:
    """Make the change, or undo it."""
    text = file.read_text(encoding="utf-8")
    gone, come = ("+", "-") if backwards else ("-", "+")
    for hunk in diff.split("@@\n"):
        lines = hunk.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if line[0] != come)
        new = "".join(line[1:] for line in lines if line[0] != gone)
        assert text.count(old) == 1, f"{file.name} holds this {text.count(old)} times:\n{old}"
        text = text.replace(old, new)
    file.write_text(text, encoding="utf-8")


def add_cell(file: Path, kind: str, source: str, **metadata: str) -> None:
    """Add a cell at the end of a notebook, which is made where it is not there."""
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    empty = {"cells": [], "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    notebook: Any = json.loads(file.read_text(encoding="utf-8")) if file.exists() else empty
    cell: dict[str, Any] = {"cell_type": kind, "metadata": metadata, "source": source}
    cell["id"] = f"c{len(notebook['cells'])}"
    if kind == "code":
        cell |= {"outputs": [], "execution_count": None}
    notebook["cells"].append(cell)
    file.write_text(json.dumps(notebook), encoding="utf-8")


def add_metadata(file: Path, values: dict[str, Any]) -> None:
    """Add to a notebook's metadata."""
    notebook = json.loads(file.read_text(encoding="utf-8"))
    notebook["metadata"].update(values)
    file.write_text(json.dumps(notebook), encoding="utf-8")


class Follower:
    """Follows a recipe in a folder. said is what the last commands printed."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.said = folder, ""
        programs = Path(sys.executable).parent
        self.environment = {
            **os.environ,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(folder),
            "QWQLAB_HOME": str(paths.home()),
            **environment,
        }

    def follow(self, block: Block) -> None:
        """Do what one block says."""
        if block.language == "diff":
            apply_diff(self.folder / block.about, block.text)
        elif block.language == "sh":
            self._run(block)
        elif block.language == "text":
            for line in block.text.splitlines():
                assert line in self.said, f"{line!r} is not in\n{self.said}"
        elif block.language == "json":
            file = self.folder / block.about.removeprefix("metadata of ")
            add_metadata(file, json.loads(block.text))
        elif block.about.startswith("new file "):
            (self.folder / block.about.removeprefix("new file ")).write_text(block.text)
        elif named := EXERCISE.fullmatch(block.about):
            add_cell(self.folder / named[2], "markdown", "", exercise=named[1])
        else:
            kind = "code" if block.language == "python" else block.language
            add_cell(self.folder / block.about, kind, block.text.strip())

    def _run(self, block: Block) -> None:
        done = subprocess.run(
            ["sh", "-ec", block.text],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self.said = done.stdout
        assert (done.returncode != 0) == (block.about == "fails"), self.said


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """A copy of what is not built."""
    ignored = (paths.CHECKOUT / ".gitignore").read_text().replace("/", "").split()
    folder = tmp_path / "qwqlab"
    shutil.copytree(
        paths.CHECKOUT, folder, ignore=shutil.ignore_patterns(".git", "*-venv", *ignored)
    )
    yield folder
    shutil.rmtree(folder)


def take_a_sampler_out(checkout: Path) -> list[Block]:
    """Undo the changes of the recipe for a sampler, and return them."""
    diffs = [block for block in read_recipe("Add a sampler") if block.language == "diff"]
    for block in diffs:
        apply_diff(checkout / block.about, block.text, backwards=True)
    return diffs


def test_the_recipe_for_a_sampler_names_every_place_in_the_package(checkout: Path) -> None:
    take_a_sampler_out(checkout)
    # What llama.cpp was in March 2025 stays as it was, whatever it learns.
    others = ("exercises", "presets.py")
    files = [
        f
        for f in (checkout / "qwqlab").rglob("*.py")
        if f.name not in others and f.parent.name not in others
    ]
    left = [file for file in files if "top_n_sigma" in file.read_text()]
    assert left == [], "the recipe passes over a place that the package needs"


@pytest.mark.nightly
@pytest.mark.slow
def test_a_sampler_is_added_as_the_recipe_says(checkout: Path) -> None:
    diffs = take_a_sampler_out(checkout)
    follower = Follower(checkout, {})
    for block in read_recipe("Add a sampler"):
        follower.follow(block)
    assert " passed" in follower.said
    for block in diffs:
        ours = paths.CHECKOUT / block.about
        assert (checkout / block.about).read_text() == ours.read_text()


@pytest.mark.slow
def test_a_model_is_added_as_the_recipe_says(
    checkout: Path, tmp_path: Path, model_path: Path
) -> None:
    with serve_hub() as hub:
        # In the place of the upload stands the lab's own copy in the same type.
        ours = requantize(model_path, "Q8_0").read_bytes()
        hub.add("bartowski/SmolLM2-135M-Instruct-GGUF", {"SmolLM2-135M-Instruct-Q8_0.gguf": ours})
        environment = {
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(tmp_path / "hub"),
            "HF_HUB_CACHE": str(tmp_path / "hub" / "hub"),
            "NO_PROXY": "127.0.0.1,localhost",
        }
        follower = Follower(checkout, environment)
        for block in read_recipe("Add a model"):
            follower.follow(block)
    assert [seen for seen in hub.log if seen.server == "network"], "nothing was fetched"
    assert " passed" in follower.said


@pytest.mark.slow
def test_a_notebook_is_added_as_the_recipe_says(checkout: Path) -> None:
    follower = Follower(checkout, {})
    for block in read_recipe("Add a notebook"):
        follower.follow(block)
    assert "1 passed" in follower.said
    written = json.loads((checkout / "notebooks/10_the_luck_of_a_seed.ipynb").read_text())
    assert all(not cell.get("outputs") for cell in written["cells"])
