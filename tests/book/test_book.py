"""What came of running every notebook: both tracks of the exercises, the costs, the pages.

`make book` runs the notebooks first; without its copies there is nothing to look at here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_page import CHROMIUM
from playwright.sync_api import Browser, sync_playwright

from qwqlab.course import Notebook, list_exercises, read_course
from qwqlab.paths import build_dir

BOOK = Path(os.environ.get("QWQLAB_BOOK") or build_dir() / "book")
COURSE = read_course()
by_stem = pytest.mark.parametrize("notebook", COURSE, ids=[each.path.stem for each in COURSE])
Cell = dict[str, Any]
LOCAL = {"127.0.0.1", "::1", "localhost"}


def read_run(notebook: Notebook) -> list[Cell]:
    path = BOOK / "run" / notebook.path.name
    if not path.is_file():
        pytest.fail(f"{path} is missing: run `make book`")
    return list(json.loads(path.read_text(encoding="utf-8"))["cells"])


def read_outcomes(cell: Cell) -> list[str]:
    outputs = (output.get("data", {}) for output in cell["outputs"])
    return ["".join(data["text/plain"]) for data in outputs if "text/plain" in data]


@by_stem
def test_each_exercise_is_open_as_it_stands_and_solved_by_its_solution(notebook: Notebook) -> None:
    checks = [cell for cell in read_run(notebook) if "expect" in cell["metadata"]]
    for cell in checks:
        (outcome,) = read_outcomes(cell)
        assert cell["metadata"]["expect"] in outcome, cell["id"]
    exercises = list_exercises(notebook.path.stem)
    assert len(checks) == sum(2 + len(each.wrong) for each in exercises)
    assert all(each.wrong for each in exercises)


@by_stem
def test_no_cell_but_a_check_fails_and_each_ran(notebook: Notebook) -> None:
    for cell in read_run(notebook):
        if cell["cell_type"] == "code":
            errors = [o["evalue"] for o in cell["outputs"] if o["output_type"] == "error"]
            assert not errors and cell["execution_count"], (cell["id"], errors)


def read_end(notebook: Notebook) -> dict[str, Any]:
    """What the copy's last cell printed of its run."""
    (printed,) = read_run(notebook)[-1]["outputs"]
    return dict(json.loads("".join(printed["text"])))


@by_stem
def test_a_notebook_takes_no_more_memory_than_its_contract_says(notebook: Notebook) -> None:
    # What it takes of disk and time is seen where it runs alone: docs/measured.json.
    assert read_end(notebook)["memory_gb"] <= notebook.contract.memory_gb


@by_stem
def test_a_notebook_asks_no_other_machine(notebook: Notebook) -> None:
    """By its kernel: every name that was looked up, and every address that was connected to."""
    assert set(read_end(notebook)["asked"]) <= LOCAL


@pytest.fixture(scope="module")
def browser(chromium: Path) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM)
        yield browser
        browser.close()


@pytest.mark.browser
@pytest.mark.parametrize("stem", ["index", *(each.path.stem for each in COURSE)])
def test_a_page_of_the_book_draws_each_figure_and_asks_for_nothing_outside(
    stem: str, browser: Browser
) -> None:
    page = browser.new_page(offline=True)
    asked, failed, errors = list[str](), list[str](), list[str]()
    page.on("request", lambda request: asked.append(request.url))
    page.on("requestfailed", lambda request: failed.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((BOOK / f"{stem}.html").as_uri(), wait_until="load")
    figures = page.locator(".figure")
    drawn = page.locator(".figure .main-svg:first-child")
    assert drawn.count() == figures.count()
    assert all(url.startswith((BOOK.as_uri(), "data:", "blob:")) for url in asked)
    assert not failed and not errors
    for link in page.locator("a[href]").all():
        target = str(link.get_attribute("href"))
        if "://" not in target and not target.startswith("#"):
            assert (BOOK / target.split("#")[0]).is_file(), target
    assert not page.locator("text=FigureWidget(").count()
    page.close()


# What claims exactness, and what spreads a model; at night all that llama.cpp computes in.
WITH_A_DEVICE = ("03_sampler_lab", "09_beyond_one_machine")
AT_NIGHT = tuple(each.path.stem for each in COURSE[:7])


@pytest.mark.parametrize(
    "stems", [WITH_A_DEVICE, pytest.param(AT_NIGHT, marks=pytest.mark.nightly)], ids=["day", "all"]
)
def test_notebooks_pass_with_a_device_that_is_not_the_cpu(
    stems: tuple[str, ...], tmp_path: Path
) -> None:
    copies = [shutil.copy(BOOK / "run" / f"{stem}.ipynb", tmp_path) for stem in stems]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--nbmake", "--overwrite", *copies]
    environment = {**os.environ, "QWQLAB_DEVICE": "rpc", "QWQLAB_PROGRESS": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    for stem in stems:
        before, after = (
            [read_texts(cell) for cell in json.loads(path.read_text("utf-8"))["cells"]]
            for path in (BOOK / "run" / f"{stem}.ipynb", tmp_path / f"{stem}.ipynb")
        )
        differ = [place for place, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
        print(f"{stem}: cells {differ} of {len(before)} show other texts")


def read_texts(cell: Cell) -> list[str]:
    return ["".join(output.get("text", "")) for output in cell.get("outputs", [])]
