"""The notebooks as a course: what each costs, and what a reader solved.

A notebook's metadata holds its contract under "qwqlab". From there come the tables in README and
00, the sentence on costs at each notebook's top, and what CI skips.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import paths
from ..errors import SettingError
from . import exercise


@dataclass(frozen=True)
class Contract:
    """What a notebook costs.

    minutes: of computing on two cores, the first time. disk_gb: what it adds, in 10^9 bytes.
    memory_gb: at its peak, in the kernel and the largest program that it starts. gpu, network:
    "none", "optional" (some cells use it where it is there) or "needed".
    """

    minutes: float
    disk_gb: float
    memory_gb: float
    gpu: str
    network: str


@dataclass(frozen=True)
class Notebook:
    """A notebook of the course: its file, its title, what one does in it, what it costs."""

    path: Path
    title: str
    does: str
    contract: Contract

    @property
    def number(self) -> str:
        """Its two digits."""
        return self.path.name[:2]

    def link(self, folder: str = "") -> str:
        """Return a Markdown link to it, from a page beside the notebooks' `folder`."""
        return f"[{self.number} {self.title}]({folder}{self.path.name})"


def read_notebook(path: Path) -> Notebook:
    """Return a notebook with its contract; raise SettingError, with the file, if that is wrong."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        values = dict(content["metadata"]["qwqlab"])
        does = str(values.pop("does"))
        first = "".join(content["cells"][0]["source"]).partition("\n")[0]
        return Notebook(path, first.removeprefix("# "), does, Contract(**values))
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise SettingError(
            f"{path} holds no contract: its metadata needs a `qwqlab` with does, minutes, disk_gb, "
            f"memory_gb, gpu and network ({error})"
        ) from error


def read_course(folder: Path = paths.CHECKOUT / "notebooks") -> list[Notebook]:
    """Return the notebooks in their order."""
    return [read_notebook(path) for path in sorted(folder.glob("[0-9][0-9]_*.ipynb"))]


def draw_table(course: Sequence[Notebook], folder: str = "") -> str:
    """Return the course as a Markdown table, a row for each notebook."""
    names = ("notebook", "what you do there", "time", "disk", "memory", "GPU", "network")
    rows = [names, ("---",) * len(names)]
    for each in course:
        contract = each.contract
        # With spaces that do not break, so that a number and its unit stay on one line.
        time = f"{max(1, math.ceil(contract.minutes))}\u00a0min"
        disk, memory = (f"{size:g}\u00a0GB" for size in (contract.disk_gb, contract.memory_gb))
        needs = ["no" if need == "none" else need for need in (contract.gpu, contract.network)]
        rows.append((each.link(folder), each.does, time, disk, memory, *needs))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def draw_progress(course: Sequence[Notebook]) -> str:
    """Return which exercises were solved in this checkout, as a Markdown table."""
    lines = ["| notebook | exercises solved here | still open |", "| --- | --- | --- |"]
    for each in course:
        # A copy in another folder shows this too, and Jupyter's links lead from there.
        folder = os.path.relpath(each.path.parent)
        exercises = exercise.list_exercises(each.path.stem)
        open_ones = [
            f"{place} ({one.kind})"
            for place, one in enumerate(exercises, start=1)
            if not exercise.has_passed(one)
        ]
        solved = f"{len(exercises) - len(open_ones)} of {len(exercises)}"
        state = ", ".join(open_ones) or "none: done"
        link = each.link("" if folder == "." else f"{Path(folder).as_posix()}/")
        lines.append(f"| {link} | {solved} | {state} |")
    return "\n".join(lines)
