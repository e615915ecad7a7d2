"""The grader's panel by itself; test_browser has it in a real browser."""

from __future__ import annotations

from qwqlab.grader import grade_text
from qwqlab.plots import show_grade
from qwqlab.widgets import GradePanel

MARKUP = "<script>alert(1)</script>"


def test_the_panel_grades_what_stands_in_its_field() -> None:
    panel = GradePanel()
    panel.choice.value = "syntax"
    panel.start()
    assert panel.wait(60)
    assert panel.graded and panel.graded.failed_stage == "extract"
    assert "was never closed" in panel.result.value
    panel.text.value = f"Hm.</think>\n```python\n{panel.text.value}```\n"
    panel.start()
    assert panel.wait(60)
    assert panel.graded and "characters of thinking" in panel.graded.stages[0].detail


def test_stop_ends_a_run_and_says_so() -> None:
    panel = GradePanel()
    panel.text.value = "import pygame\nwhile True: pass\n"
    panel.start()
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
