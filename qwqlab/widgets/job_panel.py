"""A long job on the page: its bar, Stop, and its result once there is one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import ipywidgets as widgets

from ..errors import SettingError
from .access import make_panel
from .page import Panel, make_button, show_warnings, status_box
from .workers import Throttle, Worker

Result = TypeVar("Result")
OnStep = Callable[..., None]
"""Called with how many steps are done and how many there are; what follows is passed over."""


class JobPanel(Panel, Generic[Result]):
    """A job that starts when the panel is made and runs beside the page.

    job gets on_step and stop, which it asks between two steps; stopped, it gives what it has, and
    called again it goes on from there. `result` waits for it.
    """

    def __init__(self, label: str, job: Callable[[OnStep, Callable[[], bool]], Result]) -> None:
        self.label = label
        self._job, self._stop, self._throttle = job, threading.Event(), Throttle()
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
        self.run_button = make_button("Go on", self.start, f"{label}: go on where it stopped")
        self.stop_button = make_button("Stop", self.stop, f"{label}: stop, and keep what is there")
        # Apart from the status line, which is read aloud: this one changes too often for that.
        self.counted, self.status = widgets.Label(), status_box()
        self._worker = Worker(self._say)
        row = [self.bar, self.run_button, self.stop_button, self.counted]
        buttons = widgets.HBox(row, layout={"flex_flow": "row wrap"})
        self.box = make_panel([buttons, self.status, *self._show_more()], "qwqlab-job")
        self.start()

    def start(self) -> None:
        """Start the job, or go on with it; nothing where it is done."""
        if self._found:
            return
        if not self._worker.busy:
            self._stop.clear()
        self._worker.start(self._run)

    def stop(self) -> None:
        """Ask the job to end after the step that it is at."""
        self._stop.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the job to end; whether it did."""
        return self._worker.wait(timeout)

    def result(self) -> Result:
        """What the job found, once it is done; a job that was stopped goes on.

        SettingError where it is stopped meanwhile, and what the job itself raised. An interrupt of
        the kernel stops the job too.
        """
        if not self._worker.busy:
            self.start()
        try:
            self.wait()
        except KeyboardInterrupt:
            self.stop()
            raise
        if self._error:
            raise self._error
        if not self._found:
            raise SettingError(f"{self._where()} Run this cell again, and it goes on.")
        return self._found[0]

    def _show_more(self) -> list[Any]:
        """What a panel of a certain job shows below."""
        return []

    def _run(self) -> None:
        self._error, self._started = None, time.monotonic()
        self.run_button.disabled, self.stop_button.disabled = True, False
        try:
            found = self._job(self._step, self._stop.is_set)
        except Exception as error:
            self._error = error
            raise
        else:
            if not self._stop.is_set() or self._done == self._total:
                self._found = [found]
            self._show()
        finally:
            over = bool(self._found)
            self.run_button.disabled, self.stop_button.disabled = over, True

    def _step(self, done: int, total: int, *_: Any) -> None:
        self._done, self._total = done, total
        if self._throttle.ready():
            self._show()

    def _show(self) -> None:
        if self._found:
            self._done = self._total
        self.bar.max, self.bar.value = self._total, self._done
        if self._stop.is_set() and not self._found:
            self._say(self._where())
            return
        seconds = f"{time.monotonic() - self._started:.0f} s"
        self.counted.value = f"{self._done} of {self._total}, {seconds}"
        self.status.value = f"Done in {seconds}." if self._found else ""

    def _where(self) -> str:
        return f"{self.label}: stopped at {self._done} of {self._total}; nothing is lost."

    def _say(self, sentence: str) -> None:
        self.status.value = show_warnings([sentence])
