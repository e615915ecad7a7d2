"""A panel for the grader: pick a program or paste an answer, and see it judged."""

from __future__ import annotations

import html
import threading

import ipywidgets as widgets

from .. import paths
from ..grade import Grade, grade_text
from ..plots.grade_view import GradeView
from .access import make_panel
from .page import Panel, make_button, show_warnings, status_box
from .workers import Worker

OWN = "my own answer"


class GradePanel(Panel):
    """Grades what stands in the field: a program, or a transcript with its thinking and fences.

    `text` is the field, `choice` fills it with a specimen, `grade` starts and `stop` ends; `graded`
    holds the last grade. `grade_text` does the work.
    """

    def __init__(self) -> None:
        specimens = sorted((paths.data_dir() / "specimens").glob("*.py"))
        self._specimens = {path.stem: path for path in specimens}
        self.graded: Grade | None = None
        self.choice = widgets.Dropdown(
            options=["complete", *(n for n in self._specimens if n != "complete"), OWN],
            description="program",
        )
        self.text = widgets.Textarea(
            description="answer",
            placeholder="A program, or a whole answer with its thinking and its fences.",
            layout={"width": "99%", "height": "16em"},
        )
        self.text.add_class("qwqlab-answer")
        self.run_button = make_button("Grade", self.grade, "play the program in the sandbox")
        self.stop_button = make_button("Stop", self.stop, "end the run")
        self.stop_button.disabled = True
        self.status, self.result = status_box(), widgets.HTML()
        self.result.add_class("qwqlab-grade")
        self._worker, self._stop = Worker(self._say), threading.Event()
        self.choice.observe(lambda _: self._fill(), "value")
        self._fill()
        row = [self.choice, self.run_button, self.stop_button]
        buttons = widgets.HBox(row, layout={"flex_flow": "row wrap"})
        self.box = make_panel([buttons, self.text, self.status, self.result], "qwqlab-grader")

    def grade(self) -> None:
        """Start grading what the field holds."""
        self._stop.clear()
        self._worker.start(self._grade)

    def stop(self) -> None:
        """End the run that is under way."""
        self._stop.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the grade; whether it came."""
        return self._worker.wait(timeout)

    def _fill(self) -> None:
        path = self._specimens.get(self.choice.value)
        self.text.value = path.read_text(encoding="utf-8") if path else ""
        self.result.value = self.status.value = ""

    def _grade(self) -> None:
        text = self.text.value
        self.run_button.disabled, self.stop_button.disabled = True, False
        try:
            self.result.value = ""
            self.graded = grade_text(text, not _is_answer(text), tell=self._tell, stop=self._stop)
            stopped = "Stopped: judged by what was seen until then." if self._stop.is_set() else ""
            self._say(stopped)
            self.result.value = GradeView(self.graded)._repr_html_()
        finally:
            self.run_button.disabled, self.stop_button.disabled = False, True

    def _tell(self, sentence: str) -> None:
        self.status.value = html.escape(sentence)

    def _say(self, sentence: str) -> None:
        self.status.value = show_warnings([sentence] if sentence else [])


def _is_answer(text: str) -> bool:
    """Whether a text is a transcript rather than a program: it has fences, or thinking."""
    return "</think>" in text or any(
        line.lstrip().startswith(("```", "~~~")) for line in text.splitlines()
    )
