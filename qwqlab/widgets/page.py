"""What the panels share: pieces of a page. Whatever a model wrote is escaped here."""

from __future__ import annotations

import html
import importlib
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import ipywidgets as widgets
import numpy as np

from ..plots.drawing import SCROLLS, VERMILLION, mark_names
from ..plots.stage_grid import StageGrid
from ..records import Run
from .access import make_panel

WARNING = (
    f"border:1px solid {VERMILLION};border-left:8px solid {VERMILLION};padding:.3em .6em;"
    "margin:.2em 0;line-height:1.4"
)


COMMAND_WIDTH = 96  # characters of a command's line
HALVES = {"grid_template_columns": "minmax(0, 1fr) minmax(0, 1fr)", "grid_gap": "0 12px"}


class Panel:
    """What a notebook shows as `box`. Not a widget itself: ipywidgets has names of its own."""

    box: Any

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return self.box._repr_mimebundle_(**options)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: shown in Jupyter>"


class RunProgress:
    """A bar that follows a sweep: give it as `on_run`. Shown at once where there is a page."""

    def __init__(self) -> None:
        self.bar = widgets.IntProgress(description="runs", max=1, layout={"width": "60%"})
        self.text = widgets.Label()
        self._started = time.monotonic()
        self.box = make_panel([widgets.HBox([self.bar, self.text])], "qwqlab-progress")
        display_if_possible(self.box)

    def __call__(self, done: int, total: int, run: Run) -> None:
        self.bar.max, self.bar.value = total, done
        self.text.value = f"{done} of {total}, {time.monotonic() - self._started:.0f} s"


def display_if_possible(widget: Any) -> None:
    """Show a widget at once, in the middle of a cell; nothing outside Jupyter."""
    shell = importlib.import_module("IPython").get_ipython()
    if shell is not None and threading.current_thread() is threading.main_thread():
        importlib.import_module("IPython.display").display(widget)


def status_box() -> Any:
    """The line in which a panel says what went wrong."""
    box = widgets.HTML()
    box.add_class("qwqlab-status")
    return box


def show_warnings(sentences: Iterable[str], title: str = "") -> str:
    """Sentences in a ruled box, or nothing where there are none."""
    lines = [mark_names(sentence) for sentence in sentences]
    if not lines:
        return ""
    head = f"<b>⚠ {html.escape(title)}</b><br>" if title else "<b>⚠</b> "
    return f'<div style="{WARNING}">{head}{"<br>".join(lines)}</div>'


def show_command(name: str = "") -> Any:
    """A field for a command line, to be copied: a click in it and Ctrl-A select it all.

    name: whose command it is, where a panel has two.
    """
    field = widgets.Textarea(
        description=f"reproduce {name} with" if name else "reproduce with",
        rows=4,
        layout={"width": "99%"},
        style={"description_width": "initial"},
    )
    field.add_class("qwqlab-command")
    return field


def make_button(label: str, action: Callable[[], None], tooltip: str = "") -> Any:
    """A button that calls a plain function."""
    button = widgets.Button(description=label, tooltip=tooltip or label, layout={"width": "auto"})
    button.on_click(lambda _: action())
    return button


def show_table(grid: StageGrid) -> str:
    """The numbers of a step's chart, folded: built by hand, since it is built for each move."""
    cells = ["token", *grid.rows, "removed by"]
    head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in cells)
    rows = []
    for column, text in enumerate(grid.texts):
        values = "".join(
            f"<td>{'' if np.isnan(p) else format(p, '.4f')}</td>" for p in grid.probs[:, column]
        )
        by = ", ".join(
            name for name, gone in zip(grid.rows, grid.removed[:, column], strict=True) if gone
        )
        rows.append(f'<tr><th scope="row">{html.escape(text)}</th>{values}<td>{by}</td></tr>')
    return (
        f"<details><summary>The numbers as a table</summary><div {SCROLLS}>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></details>"
    )
