"""Work beside the page: one job at a time in a thread, its errors told in a status line.

A widget's callback must return at once, or the page's other buttons, Stop among them, wait for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ..errors import QwqlabError

Report = Callable[[str], None]


class Worker:
    """One job at a time in a thread of its own. report gets an error's sentence."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether a job is under way."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, job: Callable[[], None]) -> bool:
        """Start a job; False, and a word to the reader, where one is under way."""
        if self.busy:
            self._report("This panel is at work already; press Stop first.")
            return False
        self._thread = threading.Thread(target=guard, args=(job, self._report), daemon=True)
        self._thread.start()
        return True

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the job to end; whether it did."""
        if self._thread is not None:
            self._thread.join(timeout)
        return not self.busy


class Latest:
    """The last job of a burst, run once the burst is over.

    A job computes and gives back what shows its result; that is called only if no newer job has
    come meanwhile. One runs at a time.
    """

    def __init__(self, report: Report, delay: float = 0.2) -> None:
        self._report, self._delay = report, delay
        self._wanted = threading.Condition()
        self._next: tuple[float, Callable[[], Callable[[], None]]] | None = None
        self._thread: threading.Thread | None = None

    def submit(self, job: Callable[[], Callable[[], None]]) -> None:
        """Run this job after `delay` seconds in which no other comes."""
        with self._wanted:
            self._next = time.monotonic() + self._delay, job
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True)
                self._thread.start()

    def wait(self, timeout: float = 60.0) -> bool:
        """Wait until nothing is left to do; whether that came about."""
        with self._wanted:
            return self._wanted.wait_for(lambda: self._thread is None, timeout)

    def _run(self) -> None:
        while job := self._take():
            guard(lambda job=job: self._show(job()), self._report)  # type: ignore[misc]

    def _take(self) -> Callable[[], Callable[[], None]] | None:
        """The next job, once it has lain for its delay; None, and the thread ends, without one."""
        while True:
            with self._wanted:
                if self._next is None:
                    self._thread = None
                    self._wanted.notify_all()
                    return None
                due, job = self._next
                rest = due - time.monotonic()
                if rest <= 0:
                    self._next = None
                    return job
            time.sleep(rest)

    def _show(self, show: Callable[[], None]) -> None:
        with self._wanted:
            stale = self._next is not None
        if not stale:
            show()


class Throttle:
    """Lets through at most one call in `seconds`, so that a stream does not flood the page."""

    def __init__(self, seconds: float = 0.05) -> None:
        self.seconds = seconds
        self._last = float("-inf")

    def ready(self) -> bool:
        """Whether it is time again; a yes starts the next wait."""
        now = time.monotonic()
        if now - self._last < self.seconds:
            return False
        self._last = now
        return True


def guard(job: Callable[[], None], report: Report) -> None:
    """Run a job; an error becomes its sentence in a status line, since a traceback of a thread
    or of a callback reaches nobody."""
    try:
        job()
    except QwqlabError as error:
        report(str(error))
    except Exception as error:  # noqa: BLE001
        report(f"{type(error).__name__}: {error}")
