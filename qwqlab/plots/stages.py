"""One step of a run as a stacked chart: a row for each stage of the chain, the raw one on top.

The chart holds the same few traces whatever the chain, so that a panel can put a new grid into a
figure that is already on the page.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from ..engine import Engine
from ..probe import StepView
from .drawing import BLUE, GREEN, GREY, GRID, VERMILLION, Drawing, escape_text, percent, style
from .stage_grid import StageGrid, lay_out

FULL = 0.68  # of a row's height: a bar of probability 1
BASE = 0.08
HEIGHT = 660
ROOM = 2.6  # columns at the right that hold the counts


def draw_stages(view: StepView, engine: Engine, top: int = 20) -> Drawing:
    """The stacked chart of a step, with the `top` most telling tokens as its columns."""
    grid = lay_out(view, engine, top)
    figure = go.Figure(make_traces())
    update(figure, grid)
    return Drawing(figure, grid.summary, grid.table())


def make_traces() -> list[Any]:
    """The chart's traces, empty, in the order in which `update` fills them."""
    label = {"textposition": "outside", "textfont": {"size": 10}, "cliponaxis": False}
    bar: dict[str, Any] = {"hoverinfo": "text", "width": 0.82, **label}
    mark: dict[str, Any] = {"mode": "markers", "hoverinfo": "text"}
    hatch = {"shape": "/", "fillmode": "overlay", "fgcolor": "white", "size": 6}
    return [
        go.Bar(name="kept", marker={"color": BLUE}, **bar),
        go.Bar(name="drawn token (hatched)", **bar, marker={"color": VERMILLION, "pattern": hatch}),
        go.Bar(name="all other candidates", **bar,
               marker={"color": "white", "line": {"color": GREY, "width": 1.5}}),
        go.Scatter(name="removed by this stage", **mark,
                   marker={"symbol": "x", "size": 9, "color": VERMILLION}),
        go.Scatter(name="removed earlier", **mark,
                   marker={"symbol": "circle-open", "size": 5, "color": GREY}),
        go.Scatter(name="drawn in the run, if another", **mark,
                   marker={"symbol": "diamond-open", "size": 12, "color": GREEN,
                           "line": {"width": 2}}),
        go.Scatter(mode="text", hoverinfo="skip", showlegend=False, cliponaxis=False,
                   textposition="middle right", textfont={"size": 12}),
    ]  # fmt: skip


def update(figure: Any, grid: StageGrid) -> None:
    """Put a grid into a figure made of `make_traces`, at once where it is a FigureWidget."""
    n_rows, n_columns = grid.probs.shape
    with figure.batch_update():
        _fill(figure.data, grid)
        if not figure.layout.height:
            style(figure, "", HEIGHT)
            figure.update_layout(
                barmode="overlay",
                autosize=True,
                margin={"r": 10, "t": 70, "b": 170},
                legend={"yref": "container", "y": 0.01, "yanchor": "bottom"},
                hovermode="closest",
            )
            # The legend's place must not depend on how long the tokens are.
            figure.update_xaxes(
                automargin=False, tickangle=-45, tickfont={"family": "monospace", "size": 12}
            )
            figure.update_yaxes(title="stage, in order, from top to bottom", showgrid=False)
            figure.update_xaxes(title="token; its probability in %, drawn as the square root")
        figure.layout.title.text = escape_text(grid.title)
        figure.layout.title.subtitle.text = grid.subtitle
        figure.layout.xaxis.update(
            tickvals=list(range(n_columns + 1)),
            ticktext=[*(escape_text(text) for text in grid.texts), "others"],
            range=[-0.6, n_columns + 0.6 + ROOM],
        )
        figure.layout.yaxis.update(
            tickvals=[-row - 1 + 0.5 for row in range(n_rows)],
            ticktext=list(grid.rows),
            # The grid lines are the floors on which the bars stand.
            minor={
                "tickvals": [-row - 1 + BASE for row in range(n_rows)],
                "showgrid": True,
                "gridcolor": GRID,
            },
            range=[-n_rows, 0.05],
        )


def _fill(traces: Any, grid: StageGrid) -> None:
    n_rows, n_columns = grid.probs.shape
    kept = ~np.isnan(grid.probs)
    drawn = np.zeros_like(kept)
    drawn[:, grid.drawn] = True
    _fill_bars(traces[0], grid, np.argwhere(kept & ~drawn))
    _fill_bars(traces[1], grid, np.argwhere(kept & drawn))
    rows, other = np.arange(n_rows), grid.run_token != grid.drawn
    others = np.array(grid.others)
    traces[2].update(
        x=np.full(n_rows, n_columns),
        y=np.sqrt(others) * FULL,
        base=-rows - 1 + BASE,
        text=[_number(p) for p in others],
        hovertext=[
            f"all other candidates after {r}: {percent(p)}"
            for r, p in zip(grid.rows, others, strict=True)
        ],
    )
    for trace, places in (
        (traces[3], np.argwhere(grid.removed)),
        (traces[4], np.argwhere(~kept & ~grid.removed)),
        (traces[5], np.array([[n_rows - 1, grid.run_token]] if other else np.empty((0, 2), int))),
    ):
        trace.update(
            x=places[:, 1],
            y=-places[:, 0] - 1 + BASE + 0.1,
            hovertext=[
                escape_text(f"{grid.texts[c]}: {trace.name}, {grid.rows[r]}") for r, c in places
            ],
        )
    traces[6].update(
        x=np.full(n_rows, n_columns + 0.5),
        y=-rows - 1 + 0.5,
        text=[f"{count:,} left" for count in grid.left],
    )


def _fill_bars(trace: Any, grid: StageGrid, places: npt.NDArray[np.intp]) -> None:
    probs = grid.probs[places[:, 0], places[:, 1]]
    arrows = ("", "▲", "▼")  # indexed by 0, 1 and -1
    trace.update(
        x=places[:, 1],
        y=np.sqrt(probs) * FULL,
        base=-places[:, 0] - 1 + BASE,
        text=[
            f"{_number(p)}{arrows[grid.moved[r, c]]}"
            for p, (r, c) in zip(probs, places, strict=True)
        ],
        hovertext=[
            escape_text(f"{grid.texts[c]} (token {grid.tokens[c]}) after {grid.rows[r]}: ")
            + percent(p)
            for p, (r, c) in zip(probs, places, strict=True)
        ],
    )


def _number(p: float) -> str:
    value = 100 * p
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 0.1 else ""
