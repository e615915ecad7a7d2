"""What ipywidgets leaves out for people who do not see the page, or who use no mouse."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets as widgets

_HERE = Path(__file__).resolve().parent


class Access(anywidget.AnyWidget):
    """An empty box that names the sliders, bars, status lines and figures of the panel around it.

    It also draws the ring around what has the keyboard's focus. The panel is the nearest box with
    the class `qwqlab-panel`.
    """

    _esm = (_HERE / "access.js").read_text(encoding="utf-8")
    _css = (_HERE / "access.css").read_text(encoding="utf-8")


def make_panel(children: Sequence[Any], name: str) -> Any:
    """The box of a panel: its parts from top to bottom, of the class `name`, with an `Access`."""
    box = widgets.VBox([*children, Access()])
    box.add_class("qwqlab-panel")
    box.add_class(name)
    return box
