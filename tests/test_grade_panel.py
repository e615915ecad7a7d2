"""The grader's panel: by itself, and in notebook 04 in a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_page import LabPage, open_notebook
from playwright.sync_api import expect

from qwqlab.grade_view import show_grade
from qwqlab.grader import grade_text
from qwqlab.panels import GradePanel
from qwqlab.paths import CHECKOUT

MARKUP = "<script>alert(1)</script>"


def test_the_panel_grades_what_stands_in_its_field() -> None:
    panel = GradePanel()
    panel.choice.value = "syntax"
    panel.grade()
    assert panel.wait(60)
    assert panel.graded and panel.graded.failed_stage == "parse"
    assert "was never closed" in panel.result.value
    panel.text.value = f"Hm.</think>\n```python\n{panel.text.value}```\n"
    panel.grade()
    assert panel.wait(60)
    assert panel.graded and "characters of thinking" in panel.graded.stages[0].detail


def test_stop_ends_a_run_and_says_so() -> None:
    panel = GradePanel()
    panel.text.value = "import pygame\nwhile True: pass\n"
    panel.grade()
    while not panel.status.value:
        panel.wait(0.05)
    panel.stop()
    assert panel.wait(60)
    assert "Stopped" in panel.status.value
    assert panel.graded and panel.graded.stages[-1].detail.endswith("stopped")
    assert panel.stop_button.disabled and not panel.run_button.disabled


def test_what_a_program_says_is_escaped_on_the_page() -> None:
    source = f"import pygame\nraise ValueError({MARKUP!r})\n"
    page = show_grade(grade_text(source, is_program=True))._repr_html_()
    assert MARKUP not in page and "&lt;script&gt;" in page


@pytest.fixture(scope="module")
def lab(chromium: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabPage]:
    """The notebook's set-up and its panel; nbmake runs the rest."""
    path = CHECKOUT / "notebooks" / "04_flappy_bird.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    kept = [cell for cell in cells if cell["id"] in ("title", "setup", "panel-text", "panel")]
    with open_notebook(kept, tmp_path_factory.mktemp("lab"), chromium) as lab:
        lab.run_all()
        yield lab


@pytest.mark.browser
@pytest.mark.slow
def test_a_reader_picks_a_program_and_sees_it_judged(lab: LabPage) -> None:
    lab.page.locator(".widget-dropdown select").first.select_option("red_pipes")
    field = lab.page.locator(".qwqlab-answer textarea")
    expect(field).to_have_value(re.compile("The pipes are red"))
    lab.page.get_by_role("button", name="Grade").press("Enter")
    result = lab.page.locator(".qwqlab-grade")
    expect(result).to_contain_text("FAIL: missed of the eight: 7", timeout=60_000)
    expect(result.locator("img").first).to_be_visible()
    shown = result.locator("img").evaluate_all("all => all.every(each => each.naturalWidth > 100)")
    assert shown and not lab.outside
