"""One step of a run as a stacked chart: a row for each stage of the chain, the raw one on top.

`lay_out` returns the step as plain arrays, `plot_grid` draws them, `draw_stages` does both. Tokens
are columns, and a bar's height is the square root of a probability, so that small ones are visible.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go

from ..sampling import MOVED, Engine, StepView
from .drawing import (
    BLUE,
    GREEN,
    GREY,
    GRID,
    VERMILLION,
    Drawing,
    escape_text,
    name_token,
    percent,
    style,
)

FULL = 0.68  # of a row's height: a bar of probability 1
_BASE = 0.08
_HEIGHT = 660
_ROOM = 2.6  # columns at the right that hold the counts
_NOTABLE = 0.002  # below this change of a probability an arrow would mislead


def draw_stages(view: StepView, engine: Engine, top: int = 20) -> Drawing:
    """Draw the stacked chart of a step, with the `top` most telling tokens as its columns."""
    return plot_grid(lay_out(view, engine, top))


@dataclass(frozen=True)
class StageGrid:
    """One step as arrays. Rows are "raw" and the stages, columns are tokens.

    left:    candidates left after each row.
    probs:   (rows, columns), NaN once removed.
    others:  (rows,): the probability of all candidates that have no column.
    removed: (rows, columns): removed by this row's own stage.
    moved:   (rows, columns): 1 or -1 where the stage changed the logit and the probability rose
             or fell.
    drawn:   the column of the drawn token; run_token: that of the run's own token.
    """

    view: StepView
    rows: tuple[str, ...]
    tokens: tuple[int, ...]
    texts: tuple[str, ...]
    left: tuple[int, ...]
    probs: npt.NDArray[np.float64]
    others: npt.NDArray[np.float64]
    removed: npt.NDArray[np.bool_]
    moved: npt.NDArray[np.int_]
    shifts: npt.NDArray[np.float64]
    drawn: int
    run_token: int

    @property
    def title(self) -> str:
        """The step's outcome."""
        last = self.probs[-1, self.drawn]
        outside = ", from outside the raw nucleus" if self.view.escape else ""
        return (
            f"Step {self.view.step}: {self.texts[self.drawn]} is drawn at {percent(last)}{outside}"
        )

    @property
    def subtitle(self) -> str:
        """The drawn token's probability and rank before the chain."""
        raw = percent(self.probs[0, self.drawn])
        return f"raw probability {raw}, rank {self.view.rank} (0 is the most likely)"

    @property
    def summary(self) -> str:
        """A sentence: what the chain did to the distribution."""
        most = int(np.argmax(self.shifts))
        change = f"no stage changes the distribution by more than {percent(0.001)}"
        if self.shifts[most] > 0.001:
            change = (
                f"`{self.rows[most + 1]}` changes the distribution most, moving "
                f"{percent(self.shifts[most])} of the probability"
            )
        other = ""
        if self.run_token != self.drawn:
            other = f" instead of the run's {self.texts[self.run_token]}"
        return (
            f"At step {self.view.step} the chain leaves {self.left[-1]:,} of {self.left[0]:,} "
            f"candidates, {change}, and {self.texts[self.drawn]} is drawn{other}."
        )

    def table(self) -> pd.DataFrame:
        """Return a row for each token: its probability after each stage, and what removed it."""
        frame = pd.DataFrame({"token": self.tokens, "text": self.texts})
        for row, name in enumerate(self.rows):
            frame[name] = self.probs[row]
        frame["removed by"] = [self._names(self.removed[:, i]) for i in range(len(self.tokens))]
        frame["moved by"] = [self._names(self.moved[:, i] != 0) for i in range(len(self.tokens))]
        return frame

    def _names(self, which: npt.NDArray[np.bool_]) -> str:
        return ", ".join(name for name, hit in zip(self.rows, which, strict=True) if hit)


def lay_out(
    view: StepView, engine: Engine, top: int = 20, run_token: int | None = None
) -> StageGrid:
    """Return the grid of a step. run_token: what the run drew there, if that is another token."""
    run_token = view.token if run_token is None else run_token
    tokens = _pick_tokens(view, top, run_token)
    stages = (view.raw, *view.stages)
    # Of every token of the vocabulary: NaN and 0 where it was removed.
    logits = np.full((len(stages), engine.model.n_vocab), np.nan)
    probs = np.zeros_like(logits)
    for row, stage in enumerate(stages):
        logits[row, stage.ids], probs[row, stage.ids] = stage.logits, stage.probs
    logit = logits[:, tokens]
    gone = np.isnan(logit)
    prob = np.where(gone, np.nan, probs[:, tokens])
    change = np.nan_to_num(np.diff(prob, axis=0, prepend=prob[:1]))
    touched = np.abs(np.nan_to_num(np.diff(logit, axis=0, prepend=logit[:1]))) > MOVED
    moved = np.where(touched & (np.abs(change) > _NOTABLE), np.sign(change), 0).astype(int)
    return StageGrid(
        view=view,
        rows=tuple(stage.name for stage in stages),
        tokens=tokens,
        texts=tuple(name_token(engine.model.show(token)) for token in tokens),
        left=tuple(len(stage.ids) for stage in stages),
        probs=prob,
        others=np.maximum(0.0, 1 - np.nansum(prob, axis=1)),
        removed=gone & ~np.vstack([gone[:1], gone[:-1]]),
        moved=moved,
        shifts=0.5 * np.abs(np.diff(probs, axis=0)).sum(axis=1),
        drawn=tokens.index(view.token),
        run_token=tokens.index(run_token),
    )


def _pick_tokens(view: StepView, top: int, run_token: int) -> tuple[int, ...]:
    """Return the columns: the most likely tokens of the raw distribution, then those that the chain
    brought up among the most likely ones, and always the drawn token and the run's own."""
    needed = dict.fromkeys([view.token, run_token, *view.stages[-1].top(max(1, top // 3))])
    raw = view.raw.top(top)
    n_missing = sum(token not in raw for token in needed)
    return tuple(dict.fromkeys([*raw[: max(0, top - n_missing)], *needed]))


def plot_grid(grid: StageGrid) -> Drawing:
    """Draw a grid: what each stage leaves of each token as bars, and a mark where it is removed."""
    n_rows, n_columns = grid.probs.shape
    kept = ~np.isnan(grid.probs)
    drawn, other_token = np.zeros_like(kept), np.zeros_like(kept)
    drawn[:, grid.drawn] = True
    other_token[-1, grid.run_token] = grid.run_token != grid.drawn
    hatch = {"shape": "/", "fillmode": "overlay", "fgcolor": "white", "size": 6}
    cross = {"symbol": "x", "size": 9, "color": VERMILLION}
    ring = {"symbol": "circle-open", "size": 5, "color": GREY}
    diamond = {"symbol": "diamond-open", "size": 12, "color": GREEN, "line": {"width": 2}}
    floors = [_floor(row) for row in range(n_rows)]
    figure = go.Figure(
        [
            _bars("kept", grid, kept & ~drawn, {"color": BLUE}),
            _bars("drawn token (hatched)", grid, kept & drawn,
                  {"color": VERMILLION, "pattern": hatch}),
            _bar_of_others(grid),
            _marks("removed by this stage", grid, grid.removed, cross),
            _marks("removed earlier", grid, ~kept & ~grid.removed, ring),
            _marks("drawn in the run, if another", grid, other_token, diamond),
            go.Scatter(
                mode="text", hoverinfo="skip", showlegend=False, cliponaxis=False,
                textposition="middle right", textfont={"size": 12},
                x=[n_columns + 0.5] * n_rows,
                y=[-row - 0.5 for row in range(n_rows)],
                text=[f"{count:,} left" for count in grid.left],
            ),
        ],
        {
            "title": {"subtitle": {"text": grid.subtitle}},
            "barmode": "overlay",
            "autosize": True,
            "margin": {"r": 10, "t": 70, "b": 170},
            "hovermode": "closest",
            "xaxis": {
                "title": "token; its probability in %, drawn as the square root",
                "automargin": False,  # the legend's place must not depend on how long tokens are
                "tickangle": -45,
                "tickfont": {"family": "monospace", "size": 12},
                "tickvals": list(range(n_columns + 1)),
                "ticktext": [*(escape_text(text) for text in grid.texts), "others"],
                "range": [-0.6, n_columns + 0.6 + _ROOM],
            },
            "yaxis": {
                "title": "stage, in order, from top to bottom",
                "showgrid": False,
                "tickvals": [-row - 0.5 for row in range(n_rows)],
                "ticktext": list(grid.rows),
                # The grid lines are the floors of the bars.
                "minor": {"tickvals": floors, "showgrid": True, "gridcolor": GRID},
                "range": [-n_rows, 0.05],
            },
        },
    )  # fmt: skip
    return Drawing(style(figure, grid.title, _HEIGHT), grid.summary, grid.table())


def _floor(row: int) -> float:
    """Return the height at which the bars of a row begin."""
    return -row - 1 + _BASE


def _bars(name: str, grid: StageGrid, which: npt.NDArray[np.bool_], marker: Any) -> go.Bar:
    places = _list_places(which)
    probs = [float(grid.probs[place]) for place in places]
    arrows = ("", "▲", "▼")  # indexed by 0, 1 and -1
    return _bar(
        name,
        marker,
        x=[column for _, column in places],
        y=[math.sqrt(p) * FULL for p in probs],
        base=[_floor(row) for row, _ in places],
        text=[
            f"{_number(p)}{arrows[grid.moved[place]]}"
            for p, place in zip(probs, places, strict=True)
        ],
        hovertext=[
            escape_text(f"{grid.texts[c]} (token {grid.tokens[c]}) after {grid.rows[r]}: ")
            + percent(p)
            for p, (r, c) in zip(probs, places, strict=True)
        ],
    )


def _bar_of_others(grid: StageGrid) -> go.Bar:
    rows, n_columns = range(len(grid.rows)), len(grid.tokens)
    return _bar(
        "all other candidates",
        {"color": "white", "line": {"color": GREY, "width": 1.5}},
        x=[n_columns for _ in rows],
        y=[math.sqrt(p) * FULL for p in grid.others],
        base=[_floor(row) for row in rows],
        text=[_number(p) for p in grid.others],
        hovertext=[
            f"all other candidates after {name}: {percent(p)}"
            for name, p in zip(grid.rows, grid.others, strict=True)
        ],
    )


def _bar(name: str, marker: Any, **values: Any) -> go.Bar:
    return go.Bar(
        name=name, marker=marker, width=0.82, hoverinfo="text", textposition="outside",
        textfont={"size": 10}, cliponaxis=False, **values,
    )  # fmt: skip


def _marks(name: str, grid: StageGrid, which: npt.NDArray[np.bool_], marker: Any) -> go.Scatter:
    at = _list_places(which)
    return go.Scatter(
        name=name,
        mode="markers",
        hoverinfo="text",
        marker=marker,
        x=[column for _, column in at],
        y=[_floor(row) + 0.1 for row, _ in at],
        hovertext=[escape_text(f"{grid.texts[c]}: {name}, {grid.rows[r]}") for r, c in at],
    )


def _list_places(which: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    return [(int(row), int(column)) for row, column in np.argwhere(which)]


def _number(p: float) -> str:
    value = 100 * p
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 0.1 else ""
