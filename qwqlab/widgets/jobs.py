"""Long work on the page: a bar that follows it, a Stop button, and its result at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import ipywidgets as widgets

from ..errors import SettingError
from ..plots import draw_losses
from ..sampling import Run
from .base import LiveFigure, Panel, Throttle, display_if_possible, make_panel, make_row

if TYPE_CHECKING:
    from ..tuning import FineTuned

Result = TypeVar("Result")
OnStep = Callable[..., None]
"""Called with the steps done, the steps in all, and whatever else the job reports."""


class RunProgress:
    """A bar that follows a sweep: pass it as `on_run`. A notebook shows it at once."""

    def __init__(self) -> None:
        self.bar = widgets.IntProgress(description="runs", max=1, layout={"width": "60%"})
        self.text = widgets.Label()
        self._started = time.monotonic()
        self.box = make_panel([widgets.HBox([self.bar, self.text])], "qwqlab-progress")
        display_if_possible(self.box)

    def __call__(self, done: int, total: int, run: Run) -> None:
        self.bar.max, self.bar.value = total, done
        self.text.value = f"{done} of {total}, {time.monotonic() - self._started:.0f} s"


class JobPanel(Panel, Generic[Result]):
    """A job that starts when the panel is made and runs beside the page.

    job gets on_step and stop, and checks stop between two steps. Once stopped, it returns what it
    has; called again, it goes on from there. `result` waits for it; below are widgets to show
    under the bar.
    """

    def __init__(
        self,
        label: str,
        job: Callable[[OnStep, Callable[[], bool]], Result],
        below: Sequence[Any] = (),
    ) -> None:
        super().__init__("Go on", f"{label}: go on where it stopped")
        self.label = label
        self._job, self._throttle = job, Throttle()
        self._done, self._total = 0, 1
        self._found: list[Result] = []
        self._error: Exception | None = None
        self._started = 0.0
        self.bar = widgets.IntProgress(
            description=label,
            max=1,
            style={"description_width": "initial"},
            layout={"width": "50%"},
        )
        # Not in the status line, which a screen reader reads aloud: this changes too often.
        self.counted = widgets.Label()
        buttons = make_row([self.bar, self.run_button, self.stop_button, self.counted])
        self.box = make_panel([buttons, self.status, *below], "qwqlab-job")
        self.start()

    def result(self) -> Result:
        """Wait for the job and return its result; a job that was stopped goes on first.

        Raise SettingError if it is stopped before its end, or whatever the job itself raised.
        Interrupting the kernel stops the job too.
        """
        if not self.busy and not self._found:
            self.start()
        try:
            self.wait(None)
        except KeyboardInterrupt:
            self.stop()
            raise
        if self._error:
            raise self._error
        if not self._found:
            raise SettingError(f"{self._where()} Run this cell again, and it goes on.")
        return self._found[0]

    def _run(self, job: Callable[[], None]) -> None:
        super()._run(job)
        self.run_button.disabled = bool(self._found)

    def _work(self) -> None:
        self._error, self._started = None, time.monotonic()
        try:
            found = self._job(self._step, self._stopping.is_set)
        except Exception as error:
            self._error = error
            raise
        if not self._stopping.is_set() or self._done == self._total:
            self._found = [found]
        self._show()

    def _step(self, done: int, total: int, *_: Any) -> None:
        self._done, self._total = done, total
        if self._throttle.ready():
            self._show()

    def _show(self) -> None:
        if self._found:
            self._done = self._total
        self.bar.max, self.bar.value = self._total, self._done
        if self._stopping.is_set() and not self._found:
            self._say(self._where())
            return
        seconds = f"{time.monotonic() - self._started:.0f} s"
        self.counted.value = f"{self._done} of {self._total}, {seconds}"
        self.status.value = f"Done in {seconds}." if self._found else ""

    def _where(self) -> str:
        return f"{self.label}: stopped at {self._done} of {self._total}; nothing is lost."


class LossPanel(JobPanel["FineTuned"]):
    """A `finetune` that runs beside the page, with its loss as it falls.

    job gets on_step and stop, as those of `finetune`. A run that goes on shows its earlier steps
    when it is done.
    """

    def __init__(self, label: str, job: Callable[[OnStep, Callable[[], bool]], FineTuned]) -> None:
        self._losses: dict[int, float] = {}
        self.figure, self.words = LiveFigure(draw_losses({label: []}).figure), widgets.HTML()
        super().__init__(label, job, [self.figure, self.words])

    def _step(self, done: int, total: int, *what: Any) -> None:
        for step in what:
            self._losses[step.step] = step.loss
        super()._step(done, total)

    def _show(self) -> None:
        if self._found:
            self._losses = dict(enumerate(self._found[0].losses, 1))
        if self._losses:
            drawing = draw_losses({self.label: list(self._losses.values())})
            self.figure.show(drawing.figure)
            self.words.value = drawing.words_html()
        super()._show()
