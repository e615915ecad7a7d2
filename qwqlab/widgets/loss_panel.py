"""A training run on the page: its loss as it falls, Stop, and its result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from ..finetune import FineTuned
from ..plots.drawing import style, words_html
from ..plots.loss_chart import TITLE, label_axes, make_line, tabulate, tell
from ..training import Step
from .job_panel import JobPanel, OnStep
from .live_figure import FitWidth, LiveFigure


class LossPanel(JobPanel[FineTuned]):
    """A `finetune` that runs beside the page.

    job gets on_step and stop, as those of `finetune`. A run that goes on shows its earlier steps
    when it is done.
    """

    def __init__(self, label: str, job: Callable[[OnStep, Callable[[], bool]], FineTuned]) -> None:
        self._losses: dict[int, float] = {}
        self.figure = LiveFigure([make_line(label, [])])
        style(self.figure, TITLE, 320)
        label_axes(self.figure)
        self.words = widgets.HTML()
        super().__init__(label, job)

    def _show_more(self) -> list[Any]:
        return [widgets.VBox([self.figure, FitWidth()]), self.words]

    def _step(self, done: int, total: int, *what: Any) -> None:
        for step in what:
            if isinstance(step, Step):
                self._losses[step.step] = step.loss
        super()._step(done, total, *what)

    def _show(self) -> None:
        if self._found:
            self._losses = dict(enumerate(self._found[0].losses, 1))
        with self.figure.batch_update():
            self.figure.data[0].x = list(self._losses)
            self.figure.data[0].y = list(self._losses.values())
        if self._losses:
            runs = {self.label: list(self._losses.values())}
            self.words.value = words_html(tell(runs), tabulate(runs))
        super()._show()
