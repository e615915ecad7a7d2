"""What all figures of the lab share: words and table, colours, axes and legend, names of points."""

from __future__ import annotations

import html
import importlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

# Okabe and Ito's first three, and two darker ones: colour-blind readers can tell them apart, also
# as thin lines on white. In grey they look alike, so every figure has a second cue.
BLUE = "#0072B2"
VERMILLION = "#D55E00"
GREEN = "#009E73"
PURPLE = "#882255"
BROWN = "#5C3D00"
RUST = "#B84A00"  # vermillion, dark enough for white words on it
GREY = "#767676"
INK = "#222222"
GRID = "#D9D9D9"

WIDTH = 1100
"""Pixels that a figure is laid out for; on a page it takes the width of its cell."""

_SCROLLS = 'style="overflow-x:auto" tabindex="0" role="group" aria-label="the numbers"'

LOG_AXIS: dict[str, Any] = {
    "type": "log",
    "tickvals": [factor * 10.0**power for power in range(-6, 6) for factor in (1, 2, 5)],
    "tickformat": ".1~r",
}
"""A logarithmic axis with ticks at 1, 2 and 5 of each power of ten, written out: 0.02, 200."""

_PLOTLY = "application/vnd.plotly.v1+json"
# In a notebook the words are the output below the figure's, and this script names the figure.
_NAME_FIGURE = """<script>{
  const words = document.currentScript.previousElementSibling;
  const output = words.closest(".jp-OutputArea-child")?.previousElementSibling;
  const figure = output?.querySelector(".jp-RenderedPlotly");
  if (figure) {
    figure.setAttribute("role", "figure");
    figure.setAttribute("aria-label", words.dataset.figure);
    figure.querySelector("img")?.setAttribute("alt", "");
  }
}</script>"""
# Up and to the right first, and never straight across, where error bars lie.
_ANGLES = np.arange(1, 16, 2) * np.pi / 8
_DIRECTIONS = np.column_stack([np.cos(_ANGLES), -np.sin(_ANGLES)])
_TOKEN_MARKS = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"})


Pair = tuple[float, float]


@dataclass(frozen=True)
class Shown:
    """A notebook shows `html`, in which whatever a model wrote is escaped; a shell shows `text`."""

    html: str
    text: str

    def _repr_html_(self) -> str:
        return self.html

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__


@dataclass(frozen=True)
class Drawing:
    """A figure with its words: a notebook shows both, and a shell prints the words.

    summary is a sentence that states what the figure shows, computed from the same data; table has
    the numbers behind it. The figure has a white ground in every theme; the words take the theme's
    colours.
    """

    figure: Any
    summary: str
    table: pd.DataFrame

    @property
    def title(self) -> str:
        """The figure's title as plain text."""
        return html.unescape(self.figure.layout.title.text or "")

    def words_html(self) -> str:
        """Return the summary and the folded table as HTML, escaped."""
        return (
            f"<p>{mark_names(self.summary)}</p><details><summary>The numbers as a table</summary>"
            f"<div {_SCROLLS}>{table_html(self.table)}</div></details>"
        )

    def figure_html(self) -> str:
        """Return the figure and plotly.js as HTML, named by its title and its summary."""
        figure = self.figure.to_html(full_html=False, include_plotlyjs=True)
        return f'<div role="figure" aria-label="{self._name()}">{figure}</div>'

    def _name(self) -> str:
        return html.escape(f"{self.title}. {self.summary.replace('`', '')}")

    def _ipython_display_(self) -> None:
        shown: Any = importlib.import_module("IPython.display")
        # Plotly's own way to show a figure would first import nbformat, which takes seconds.
        shown.display({_PLOTLY: json.loads(self.figure.to_json())}, raw=True)
        words = f'<div data-figure="{self._name()}">{self.words_html()}</div>'
        shown.display(shown.HTML(words + _NAME_FIGURE))

    def __str__(self) -> str:
        table = self.table.to_string(index=False, float_format="{:.4g}".format)
        return f"{self.title}\n{self.summary}\n{table}"

    __repr__ = __str__


def style(figure: Any, title: str, height: int) -> Any:
    """Give a figure the lab's look and a title. What the figure sets itself takes precedence."""
    title = escape_text(title)
    return figure.update_layout(title={"text": title}, height=height, template=_make_template())


@cache
def _make_template() -> Any:
    """Return the lab's look: white ground, grid lines, a legend below.

    Plotly checks a template once and a layout at every change, which a slider would wait for.
    """
    templates: Any = importlib.import_module("plotly.graph_objects").layout
    axis = {
        "showgrid": True,
        "gridcolor": GRID,
        "zeroline": False,
        "showline": True,
        "linecolor": GREY,
        "ticks": "outside",
        "automargin": True,
        "title": {"font": {"size": 14}},
    }
    return templates.Template(
        layout={
            "title": {
                "font": {"size": 16},
                "subtitle": {"font": {"size": 13}},
                "x": 0.01,
                "xanchor": "left",
            },
            "font": {"size": 13, "color": INK, "family": "Helvetica, Arial, sans-serif"},
            "paper_bgcolor": "white",
            "plot_bgcolor": "white",
            "margin": {"l": 70, "r": 30, "t": 60, "b": 90},
            # At the figure's lower edge, where it moves the axes' titles up and covers none.
            "legend": {
                "orientation": "h",
                "yref": "container",
                "yanchor": "bottom",
                "y": 0.01,
                "x": 0,
            },
            "hoverlabel": {"align": "left"},
            "xaxis": axis,
            "yaxis": axis,
        }
    )


def error_bars(
    middles: Iterable[float], intervals: Iterable[Sequence[float]], **look: Any
) -> dict[str, Any]:
    """Return Plotly's error bars from each value to the ends of its interval."""
    pairs = list(zip(middles, intervals, strict=True))
    # Rounding can put a rate of 0 or 1 outside its interval by a hair.
    above = [max(0.0, interval[1] - middle) for middle, interval in pairs]
    below = [max(0.0, middle - interval[0]) for middle, interval in pairs]
    return {"array": above, "arrayminus": below, "thickness": 1, **look}


def label_points(
    figure: Any, names: Mapping[Pair, str], x: Pair, y: Pair, size: Pair, **axes: Any
) -> None:
    """Name points, each at the nearest place where its name covers no point and no other name.

    x, y: the ranges of the plot; size: its width and height in pixels. Give a point on a log axis,
    and the axis' range, as log10. axes: which axes the points belong to.
    """
    scale = np.array([size[0] / (x[1] - x[0]), size[1] / (y[0] - y[1])])
    pixels = (np.reshape(list(names), (-1, 2)) - [x[0], y[1]]) * scale
    centre = np.array(size) / 2
    # Middles and half sizes of the boxes that are taken, and then of the places for a name.
    middles, halves = list(pixels), [np.array([9.0, 9.0])] * len(names)
    for (point, text), at in zip(names.items(), pixels, strict=True):
        lines = text.split("\n")
        half = np.array([3.7 * max(map(len, lines)), 8.0 * len(lines)])
        offsets = np.concatenate(
            [np.round(_DIRECTIONS * (away + half)) for away in (16, 30, 46, 66, 90)]
        )
        places = at + offsets
        covered = (np.abs(places[:, None] - middles) < half + halves).all(axis=2).sum(axis=1)
        crossed = (np.abs(places - centre) > centre - half).sum(axis=1)  # worse than nine names
        best = int(np.argmin(covered + 9 * crossed))
        middles.append(places[best])
        halves.append(half)
        dx, dy = offsets[best].tolist()
        figure.add_annotation(
            x=point[0], y=point[1], ax=dx, ay=dy, text=escape_text(text).replace("\n", "<br>"),
            font={"size": 12, "color": INK}, arrowwidth=0.8, arrowhead=0, arrowcolor=INK,
            standoff=7, bgcolor="rgba(255,255,255,.75)", **axes,
        )  # fmt: skip


def escape_text(text: str) -> str:
    """Return a text that Plotly shows as it is, without tags, entities or $formulas$.

    >>> escape_text("<br>$x$")
    '&lt;br&gt;&#36;x&#36;'
    """
    return html.escape(text, quote=False).replace("$", "&#36;")


def table_html(table: pd.DataFrame) -> str:
    """Return a table as HTML, escaped, without an index; its header cells are marked as headers."""
    text = table.to_html(index=False, float_format="{:.4g}".format, na_rep="", border=0)
    return text.replace("<th>", '<th scope="col">')


def show_rows(rows: Iterable[Sequence[Any]], columns: Sequence[str]) -> Shown:
    """Return rows of words as a table: flush left, escaped, without an index."""
    table = pd.DataFrame([tuple(row) for row in rows], columns=list(columns))
    # An empty header must not be announced as one.
    head = "".join(_cell('th scope="col"' if name else "td", name) for name in table)
    body = "".join(
        f"<tr>{''.join(_cell('td', value) for value in row)}</tr>"
        for row in table.itertuples(index=False, name=None)
    )
    page = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return Shown(page, table.to_string(index=False))


def _cell(tag: str, value: object) -> str:
    words = mark_names(str(value))
    return f'<{tag} style="text-align:left;vertical-align:top">{words}</{tag.split()[0]}>'


def mark_names(text: str) -> str:
    """Return a sentence as HTML, escaped, with names in backticks as code.

    >>> mark_names("`top_k` removes '<b>'")
    '<code>top_k</code> removes &#x27;&lt;b&gt;&#x27;'
    """
    return re.sub(r"`([\w -]+)`", r"<code>\1</code>", html.escape(text))


def name_token(text: str, limit: int = 14) -> str:
    """Return a token as a short label in which every character is visible.

    >>> name_token(" return\\n"), name_token("")
    ('␣return⏎', '(empty)')
    """
    seen = text.translate(_TOKEN_MARKS)
    seen = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in seen)
    if len(seen) > limit:
        seen = f"{seen[: limit - 1]}…"
    return seen or "(empty)"


def percent(share: float) -> str:
    """Return a share as a person reads it.

    >>> percent(0.4567), percent(0.0312), percent(0.00004)
    ('46 %', '3.1 %', '0.004 %')
    """
    value = 100 * share
    if value >= 9.95 or value == 0:
        return f"{value:.0f} %"
    return f"{value:.1f} %" if value >= 0.1 else f"{value:.1g} %"
