"""A long job beside the page: progress, Stop, going on, and what it says when it can't."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from qwqlab.errors import SettingError
from qwqlab.tuning import Step
from qwqlab.widgets import JobPanel, LossPanel
from qwqlab.widgets.jobs import OnStep


class Steps:
    """A job of four steps that goes on where it was stopped; each waits for leave."""

    def __init__(self) -> None:
        self.done: list[int] = []
        self.leave = threading.Semaphore(0)
        self.reached = threading.Semaphore(0)

    def __call__(self, on_step: OnStep, stop: Callable[[], bool]) -> list[int]:
        while len(self.done) < 4:
            self.leave.acquire()
            self.done.append(len(self.done))
            on_step(len(self.done), 4, "what was done")
            self.reached.release()
            if stop():
                break
        return list(self.done)


def test_it_starts_by_itself_and_result_waits() -> None:
    steps = Steps()
    steps.leave.release(4)
    panel = JobPanel("Count", steps)
    assert panel.result() == [0, 1, 2, 3] == panel.result()
    assert panel.bar.value == panel.bar.max == 4
    assert "Done" in panel.status.value
    assert panel.run_button.disabled and panel.stop_button.disabled


def test_a_stopped_job_keeps_what_it_has_and_goes_on() -> None:
    steps = Steps()
    panel = JobPanel("Count", steps)
    assert not panel.stop_button.disabled
    steps.leave.release()
    steps.reached.acquire()
    panel.stop()
    steps.leave.release()
    assert panel.wait(60)
    assert steps.done == [0, 1]
    assert "stopped at 2 of 4; nothing is lost" in panel.status.value
    assert panel.stop_button.disabled and not panel.run_button.disabled
    steps.leave.release(2)
    assert panel.result() == [0, 1, 2, 3]


def test_result_says_that_it_was_stopped_meanwhile() -> None:
    steps = Steps()
    panel = JobPanel("Count", steps)
    panel.stop()
    threading.Timer(0.2, steps.leave.release).start()
    with pytest.raises(SettingError, match=r"stopped at 1 of 4.*Run this cell again"):
        panel.result()


def test_a_stop_at_the_last_step_loses_nothing() -> None:
    steps = Steps()
    steps.leave.release(3)
    panel = JobPanel("Count", steps)
    for _ in range(3):
        steps.reached.acquire()
    panel.stop()
    steps.leave.release(2)
    panel.wait(60)
    assert panel.result() == [0, 1, 2, 3]


def test_an_error_is_told_on_the_page_and_raised_to_who_asks() -> None:
    def fail(on_step: OnStep, stop: Callable[[], bool]) -> None:
        raise SettingError("<b>no</b> model; name another")

    panel = JobPanel("Count", fail)
    assert panel.wait(60)
    assert "&lt;b&gt;no&lt;/b&gt; model" in panel.status.value
    with pytest.raises(SettingError, match="name another"):
        panel.result()


def test_an_interrupt_of_the_kernel_stops_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps()
    panel = JobPanel("Count", steps)

    def interrupt(timeout: float | None = None) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(panel, "wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            panel.result()
    steps.leave.release()
    assert panel.wait(60)
    assert steps.done == [0]


def test_a_training_run_shows_its_loss_as_it_goes() -> None:
    steps = [Step(n, 2.0 / n, 0.1, 10, 1) for n in (1, 2, 3)]

    def train(on_step: OnStep, stop: Callable[[], bool]) -> Any:
        for step in steps:
            on_step(step.step, 3, step)
        return SimpleNamespace(losses=[step.loss for step in steps])

    panel = LossPanel("Train", train)
    assert panel.result().losses == [2.0, 1.0, 2.0 / 3]
    (line,) = panel.figure.figure["data"]
    assert (line["x"], line["y"]) == ([1, 2, 3], [2.0, 1.0, 2.0 / 3])
