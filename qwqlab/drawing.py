"""What every figure of the lab shares: its words and table, its colours, its grid."""

from __future__ import annotations

import html
import importlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from . import files

# Okabe and Ito's palette: told apart by colour-blind readers, and in grey by their lightness.
BLUE = "#0072B2"
VERMILLION = "#D55E00"
GREEN = "#009E73"
PURPLE = "#AA4499"
AMBER = "#E69F00"
GREY = "#767676"
INK = "#222222"
GRID = "#D9D9D9"

WIDTH = 1100
"""Pixels that a figure is laid out for; on a page it takes the width it is given."""

_TOKEN_MARKS = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"})


@dataclass(frozen=True)
class Drawing:
    """A figure with its words: it shows as all three in Jupyter, and prints as text elsewhere.

    summary is one sentence that states what the figure shows, computed from the same data; table
    holds the numbers behind it, a row each.
    """

    figure: Any
    summary: str
    table: pd.DataFrame

    @property
    def title(self) -> str:
        """The figure's title as plain text."""
        return html.unescape(self.figure.layout.title.text or "")

    def words_html(self) -> str:
        """The summary and the folded table, escaped for a page."""
        table = self.table.to_html(index=False, float_format="{:.4g}".format, border=0)
        return (
            f"<p>{mark_names(self.summary)}</p>"
            f"<details><summary>The numbers as a table</summary>{table}</details>"
        )

    def _ipython_display_(self) -> None:
        shown: Any = importlib.import_module("IPython.display")
        shown.display(self.figure)
        shown.display(shown.HTML(self.words_html()))

    def __str__(self) -> str:
        table = self.table.to_string(index=False, float_format="{:.4g}".format)
        return f"{self.title}\n{self.summary}\n{table}"

    __repr__ = __str__

    def write_html(self, path: str | Path) -> Path:
        """Write figure, summary and table as one page that needs no network."""
        figure = self.figure.to_html(full_html=False, include_plotlyjs=True)
        page = (
            '<!doctype html><html lang="en"><meta charset="utf-8">'
            f"<title>{html.escape(self.title)}</title>"
            f"<body style='font-family:sans-serif'>{figure}{self.words_html()}</body></html>"
        )
        return files.write_text(Path(path), page)


def style(figure: Any, title: str, height: int) -> Any:
    """Give a figure the lab's look: title, white ground, grid lines, a legend below."""
    figure.update_layout(
        title={"text": escape_text(title), "font": {"size": 16}, "x": 0.01, "xanchor": "left"},
        template="none",
        height=height,
        font={"size": 13, "color": INK, "family": "Helvetica, Arial, sans-serif"},
        paper_bgcolor="white",
        plot_bgcolor="white",
        margin={"l": 70, "r": 30, "t": 60, "b": 60},
        legend={"orientation": "h", "yanchor": "top", "y": -0.16, "x": 0},
        hoverlabel={"align": "left"},
    )
    axis = {"gridcolor": GRID, "zeroline": False, "linecolor": GREY, "automargin": True}
    figure.update_xaxes(showgrid=True, showline=True, ticks="outside", **axis)
    figure.update_yaxes(showgrid=True, showline=True, ticks="outside", **axis)
    return figure


def escape_text(text: str) -> str:
    """A text that Plotly shows as it stands: it would read tags, entities and $formulas$.

    >>> escape_text("<br>$x$")
    '&lt;br&gt;&#36;x&#36;'
    """
    return html.escape(text, quote=False).replace("$", "&#36;")


def show_rows(rows: Iterable[Sequence[Any]], columns: Sequence[str]) -> Any:
    """Rows of words as a table for a page: flush left, escaped, without an index."""
    flush: Any = {"selector": "th, td", "props": "text-align: left; vertical-align: top"}
    table = pd.DataFrame(list(rows), columns=list(columns)).style.hide(axis="index")
    return table.format(lambda value: mark_names(str(value))).set_table_styles([flush])


def mark_names(text: str) -> str:
    """A sentence for a page, escaped, with names in backticks as code.

    >>> mark_names("`top_k` removes '<b>'")
    '<code>top_k</code> removes &#x27;&lt;b&gt;&#x27;'
    """
    return re.sub(r"`([\w -]+)`", r"<code>\1</code>", html.escape(text))


def name_token(text: str, limit: int = 14) -> str:
    """A token as a short label in which every character can be seen.

    >>> name_token(" return\\n"), name_token("")
    ('␣return⏎', '(empty)')
    """
    seen = text.translate(_TOKEN_MARKS)
    seen = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in seen)
    if len(seen) > limit:
        seen = f"{seen[: limit - 1]}…"
    return seen or "(empty)"


def percent(share: float) -> str:
    """A share as a person reads it.

    >>> percent(0.4567), percent(0.0312), percent(0.00004)
    ('46 %', '3.1 %', '0.004 %')
    """
    value = 100 * share
    if value >= 10 or value == 0:
        return f"{value:.0f} %"
    return f"{value:.1f} %" if value >= 0.1 else f"{value:.1g} %"
