"""A panel for the grader: pick a program or paste an answer, and see it judged."""

from __future__ import annotations

import html

import ipywidgets as widgets

from .. import paths
from ..grader import Grade, grade_text
from ..plots import show_grade
from .base import Panel, make_panel, make_row

OWN = "my own answer"


class GradePanel(Panel):
    """A field for a program, or a transcript with its thinking and fences, and its grade.

    `text` is the field, and `choice` fills it with a specimen; `graded` is the last grade.
    `grade_text` gives the same without a page.
    """

    def __init__(self) -> None:
        super().__init__("Grade", "play the program in the sandbox")
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
        self.result = widgets.HTML()
        self.result.add_class("qwqlab-grade")
        self.choice.observe(lambda _: self._fill(), "value")
        self._fill()
        buttons = make_row([self.choice, self.run_button, self.stop_button])
        self.box = make_panel([buttons, self.text, self.status, self.result], "qwqlab-grader")

    def _fill(self) -> None:
        path = self._specimens.get(self.choice.value)
        self.text.value = path.read_text(encoding="utf-8") if path else ""
        self.result.value = self.status.value = ""

    def _work(self) -> None:
        self.result.value = ""
        self.graded = grade_text(self.text.value, tell=self._tell, stop=self._stopping)
        stopped = "Stopped: judged by what was seen until then."
        self._say(stopped if self._stopping.is_set() else "")
        self.result.value = show_grade(self.graded)._repr_html_()

    def _tell(self, sentence: str) -> None:
        self.status.value = html.escape(sentence)
