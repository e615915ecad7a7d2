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

from .. import files

# Okabe and Ito's first three, and two darker ones: told apart by colour-blind readers, and seen as
# thin lines on white. In grey they look alike, so no figure tells by colour alone.
BLUE = "#0072B2"
VERMILLION = "#D55E00"
GREEN = "#009E73"
PURPLE = "#882255"
BROWN = "#5C3D00"
RUST = "#B84A00"  # vermillion, dark enough to stand behind white words
GREY = "#767676"
INK = "#222222"
GRID = "#D9D9D9"

WIDTH = 1100
"""Pixels that a figure is laid out for; on a page it takes the width it is given."""

SCROLLS = 'style="overflow-x:auto" tabindex="0" role="group" aria-label="the numbers"'

# In a notebook the words stand in the output after the figure's, and give it its name there.
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
_TOKEN_MARKS = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"})


@dataclass(frozen=True)
class Drawing:
    """A figure with its words: it shows as all three in Jupyter, and prints as text elsewhere.

    summary is one sentence that states what the figure shows, computed from the same data; table
    holds the numbers behind it, a row each. The figure stands on a white card whatever the theme,
    as in print; the words take the theme's colours.
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
        return words_html(self.summary, self.table)

    def figure_html(self) -> str:
        """The figure as a part of a page, named by its title and its summary, with plotly.js."""
        figure = self.figure.to_html(full_html=False, include_plotlyjs=True)
        return f'<div role="figure" aria-label="{self._name()}">{figure}</div>'

    def _name(self) -> str:
        return html.escape(f"{self.title}. {self.summary.replace('`', '')}")

    def _ipython_display_(self) -> None:
        shown: Any = importlib.import_module("IPython.display")
        shown.display(self.figure)
        words = f'<div data-figure="{self._name()}">{self.words_html()}</div>'
        shown.display(shown.HTML(words + _NAME_FIGURE))

    def __str__(self) -> str:
        table = self.table.to_string(index=False, float_format="{:.4g}".format)
        return f"{self.title}\n{self.summary}\n{table}"

    __repr__ = __str__

    def write_html(self, path: str | Path) -> Path:
        """Write figure, summary and table as one page that needs no network."""
        page = (
            '<!doctype html><html lang="en"><meta charset="utf-8">'
            f"<title>{html.escape(self.title)}</title><body style='font-family:sans-serif'>"
            f"<main>{self.figure_html()}{self.words_html()}</main></body></html>"
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


def words_html(summary: str, table: pd.DataFrame) -> str:
    """A figure's sentence and its numbers, folded, escaped for a page."""
    return (
        f"<p>{mark_names(summary)}</p><details><summary>The numbers as a table</summary>"
        f"<div {SCROLLS}>{table_html(table)}</div></details>"
    )


def table_html(table: pd.DataFrame) -> str:
    """A table for a page, escaped, without an index; each header cell says what it heads."""
    text = table.to_html(index=False, float_format="{:.4g}".format, border=0)
    return text.replace("<th>", '<th scope="col">')


def show_rows(rows: Iterable[Sequence[Any]], columns: Sequence[str]) -> Rows:
    """Rows of words as a table for a page: flush left, escaped, without an index."""
    return Rows(pd.DataFrame([tuple(row) for row in rows], columns=list(columns)))


@dataclass(frozen=True)
class Rows:
    """A table of words: HTML in Jupyter, text elsewhere."""

    table: pd.DataFrame

    def _repr_html_(self) -> str:
        # A header without words is none.
        head = "".join(_cell('th scope="col"' if name else "td", name) for name in self.table)
        body = "".join(
            f"<tr>{''.join(_cell('td', value) for value in row)}</tr>"
            for row in self.table.itertuples(index=False, name=None)
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def __str__(self) -> str:
        return self.table.to_string(index=False)

    __repr__ = __str__


def _cell(tag: str, value: object) -> str:
    words = mark_names(str(value))
    return f'<{tag} style="text-align:left;vertical-align:top">{words}</{tag.split()[0]}>'


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
