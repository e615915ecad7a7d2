"""The parts of every panel: work in the background, a figure that changes, pieces of HTML.

Whatever a model wrote is escaped here.
"""

from __future__ import annotations

import html
import importlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets as widgets
import traitlets

from ..errors import QwqlabError
from ..plots import VERMILLION, mark_names

COMMAND_WIDTH = 96  # characters of a command's line
HALVES = {"grid_template_columns": "minmax(0, 1fr) minmax(0, 1fr)", "grid_gap": "0 12px"}
_HERE = Path(__file__).resolve().parent
_BUSY = "This panel is at work already; press Stop first."
_WARNING = (
    f"border:1px solid {VERMILLION};border-left:8px solid {VERMILLION};padding:.3em .6em;"
    "margin:.2em 0;line-height:1.4"
)
_BOX = (
    "white-space:pre-wrap;overflow-wrap:anywhere;font-family:monospace;font-size:13px;"
    "line-height:1.4;overflow-y:auto;border:1px solid #999;padding:.4em;"
)

Show = Callable[[], None]
"""A function that shows what a job in the background has computed."""


class Panel:
    """A `box` that a notebook shows, with Run, Stop and a line for errors.

    A subclass does its work in `_work`, which `start` runs in a thread, and other jobs by `_begin`,
    one at a time: a widget's callback must return at once, or the page's other buttons, Stop among
    them, wait for it.
    """

    box: Any

    def __init__(self, run: str, tooltip: str) -> None:
        self.run_button = make_button(run, self.start, tooltip)
        self.stop_button = make_button("Stop", self.stop, "stop, and keep what is done so far")
        self.stop_button.disabled = True
        self.status = widgets.HTML()
        self.status.add_class("qwqlab-status")
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """True while work is under way."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start the work in the background."""
        self._begin(self._work)

    def stop(self) -> None:
        """Ask the work to end; its results so far stay."""
        self._stopping.set()

    def wait(self, timeout: float | None = 60.0) -> bool:
        """Wait for the work to end, and return whether it did."""
        if self._thread is not None:
            self._thread.join(timeout)
        return not self.busy

    def _work(self) -> None:
        raise NotImplementedError

    def _begin(self, job: Callable[[], None]) -> None:
        if self.busy:
            self._say(_BUSY)
            return
        self._say("")
        self._stopping.clear()
        guarded = partial(self._guard, partial(self._run, job))
        self._thread = threading.Thread(target=guarded, daemon=True)
        self._thread.start()

    def _run(self, job: Callable[[], None]) -> None:
        self.run_button.disabled, self.stop_button.disabled = True, False
        try:
            job()
        finally:
            self.run_button.disabled, self.stop_button.disabled = False, True
            if self.status.value == show_warnings([_BUSY]):
                self._say("")

    def _guard(self, job: Callable[[], None]) -> None:
        """Run a job and show an error in the status line: nobody sees a thread's traceback."""
        try:
            job()
        except QwqlabError as error:
            self._say(str(error))
        except Exception as error:  # noqa: BLE001
            self._say(f"{type(error).__name__}: {error}")

    def _say(self, sentence: str) -> None:
        self.status.value = show_warnings([sentence] if sentence else [])

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return self.box._repr_mimebundle_(**options)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: shown in Jupyter>"


class Latest:
    """Run only the last job of a burst, such as the moves of a slider, once the burst is over.

    A job computes and returns a function that shows its result, which is called only if no newer
    job has been submitted. One job runs at a time.
    """

    def __init__(self, guard: Callable[[Callable[[], None]], None], delay: float = 0.2) -> None:
        self._guard, self._delay = guard, delay
        self._one = threading.Lock()
        self._timer: threading.Timer | None = None

    def submit(self, job: Callable[[], Show]) -> None:
        """Run this job after `delay` seconds in which no other is submitted."""
        if self._timer is not None:
            self._timer.cancel()
        timer = self._timer = threading.Timer(self._delay, lambda: self._run(timer, job))
        timer.daemon = True
        timer.start()

    def wait(self, timeout: float | None = 60.0) -> bool:
        """Wait until no job is left, and return whether that happened in time."""
        if self._timer is None:
            return True
        self._timer.join(timeout)
        return not self._timer.is_alive()

    def _run(self, timer: threading.Timer, job: Callable[[], Show]) -> None:
        def compute_and_show() -> None:
            if timer is self._timer:
                show = job()
                if timer is self._timer:
                    show()

        with self._one:
            self._guard(compute_and_show)


class Throttle:
    """Let through at most one call in `seconds`, so that a stream does not flood the page."""

    def __init__(self, seconds: float = 0.05) -> None:
        self.seconds = seconds
        self._last = float("-inf")

    def ready(self) -> bool:
        """Return whether the wait is over; if so, the next one starts."""
        now = time.monotonic()
        if now - self._last < self.seconds:
            return False
        self._last = now
        return True


class LiveFigure(anywidget.AnyWidget):
    """A Plotly figure that changes in place and fills the width of its cell.

    `show` replaces the figure. Plotly's FigureWidget does so too, but importing it loads nbformat
    and all of jsonschema's formats, which takes seconds; it measures its width only once; and a
    page opened later shows the first figure, not the last.
    """

    _esm = "\n".join(
        [
            (resources.files("plotly") / "package_data" / "plotly.min.js").read_text("utf-8"),
            (_HERE / "live_figure.js").read_text("utf-8"),
        ]
    )
    figure = traitlets.Dict().tag(sync=True)

    def __init__(self, figure: Any) -> None:
        super().__init__(figure=json.loads(figure.to_json()))

    def show(self, figure: Any) -> None:
        """Draw this figure from now on."""
        self.figure = json.loads(figure.to_json())


class Access(anywidget.AnyWidget):
    """An empty box that adds what ipywidgets leaves out for people who can't see or use no mouse.

    It names the sliders, bars, status lines and figures of the panel around it, and draws a ring
    around whatever has the keyboard's focus. The panel is the nearest box of class `qwqlab-panel`.
    """

    _esm = (_HERE / "access.js").read_text(encoding="utf-8")
    _css = (_HERE / "access.css").read_text(encoding="utf-8")


def make_panel(children: Sequence[Any], name: str) -> Any:
    """Return a panel's box: its parts from top to bottom, of the class `name`, with an `Access`."""
    box = widgets.VBox([*children, Access()])
    box.add_class("qwqlab-panel")
    box.add_class(name)
    return box


def make_row(children: Sequence[Any]) -> Any:
    """Return widgets beside each other, wrapped where the row is full."""
    return widgets.HBox(list(children), layout={"flex_flow": "row wrap"})


def make_button(label: str, action: Callable[[], None], tooltip: str = "") -> Any:
    """Return a button that calls a plain function."""
    button = widgets.Button(description=label, tooltip=tooltip or label, layout={"width": "auto"})
    button.on_click(lambda _: action())
    return button


def make_seed_field(seed: int) -> Any:
    """Return a field for a seed."""
    return widgets.BoundedIntText(
        seed, min=0, max=2**31 - 1, description="seed", layout={"width": "180px"}
    )


def make_command_field(name: str = "") -> Any:
    """Return a field that shows a command line to copy: a click and Ctrl-A select it all.

    name: whose command it is, if a panel has two.
    """
    field = widgets.Textarea(
        description=f"reproduce {name} with" if name else "reproduce with",
        rows=6,
        layout={"width": "99%"},
        style={"description_width": "initial"},
    )
    field.add_class("qwqlab-command")
    return field


def display_if_possible(widget: Any) -> None:
    """Show a widget at once, in the middle of a cell; do nothing outside Jupyter."""
    shell = importlib.import_module("IPython").get_ipython()
    if shell is not None and threading.current_thread() is threading.main_thread():
        importlib.import_module("IPython.display").display(widget)


def show_warnings(sentences: Iterable[str], title: str = "") -> str:
    """Return the HTML of sentences in a ruled box, or "" if there are none."""
    lines = [mark_names(sentence) for sentence in sentences]
    if not lines:
        return ""
    head = f"<b>⚠ {html.escape(title)}</b><br>" if title else "<b>⚠</b> "
    return f'<div style="{_WARNING}">{head}{"<br>".join(lines)}</div>'


def show_text(text: str, height: int, name: str, follow: bool = False) -> str:
    """Return the HTML of a text in a box that scrolls.

    name: what the box holds, for a screen reader. follow: keep the end of a long text in sight, by
    stacking from the bottom.
    """
    more = "display:flex;flex-direction:column-reverse;" if follow else ""
    return (
        f'<div style="{_BOX}{more}height:{height}px" tabindex="0" role="group" '
        f'aria-label="{html.escape(name)}">'
        f'<div style="margin-bottom:auto">{html.escape(text)}</div></div>'
    )
