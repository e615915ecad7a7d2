"""The article's suspects: how much each override changes a rate, against what would be harm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
import plotly.graph_objects as go

from .drawing import BLUE, GREY, VERMILLION, Drawing, error_bars, escape_text, style

if TYPE_CHECKING:
    from ..experiments import Conduct
    from ..stats import Paired

_MARKERS = {"acquitted": "circle", "convicted": "x", "undecided": "circle-open"}


def draw_suspects(found: Sequence[Conduct], harm: float) -> Drawing:
    """Draw the change of each rate with its 95 % interval, two rows a suspect.

    harm: the least change that counts as harm, as a fraction; a band marks smaller ones.
    """
    figure = style(go.Figure(), _title(found), 160 + 90 * len(found))
    band = {"color": GREY, "width": 1, "dash": "dot"}
    figure.add_vrect(-100 * harm, 100 * harm, fillcolor=f"{GREY}26", line=band, layer="below")
    figure.add_vline(0, line_color=GREY, layer="below")
    rows = [(each.suspect, count) for each in found for count in (each.code, each.loops)]
    for name, color in (("valid code", BLUE), ("loops", VERMILLION)):
        chosen = [(suspect, count) for suspect, count in rows if count.what == name]
        middles = [100 * (c.after - c.before) / max(1, c.n) for _, c in chosen]
        figure.add_scatter(
            x=middles,
            y=[f"{escape_text(suspect)}, {name}" for suspect, _ in chosen],
            text=[c.verdict for _, c in chosen],
            mode="markers+text",
            textposition="top center",
            cliponaxis=False,
            name=f"{name}, and its 95 % interval",
            marker={
                "size": 12,
                "color": color,
                "symbol": [_MARKERS[c.verdict] for _, c in chosen],
                "line": {"width": 2, "color": color},
            },
            error_x=error_bars(
                middles,
                [[100 * end for end in c.interval] for _, c in chosen],
                thickness=2,
                color=color,
            ),
        )
    figure.update_xaxes(title="change of the rate, percentage points (band: no harm)")
    order = [f"{escape_text(suspect)}, {count.what}" for suspect, count in rows]
    figure.update_yaxes(categoryorder="array", categoryarray=order[::-1])
    return Drawing(figure, _tell(rows, harm), _tabulate(rows))


def _title(found: Sequence[Conduct]) -> str:
    moved = [each.suspect for each in found if each.code.verdict == "convicted"]
    if not moved:
        return "No override moves the rate of valid programs by what these runs can show as harm"
    return f"Flipping {' and '.join(moved)} changes the rate of valid programs"


def _tell(rows: Sequence[tuple[str, Paired]], harm: float) -> str:
    said = []
    for suspect, c in rows:
        low, high = c.interval
        said.append(
            f"{suspect}, {c.what}: {c.before} of {c.n} before, {c.after} after "
            f"({100 * low:+.0f} to {100 * high:+.0f} points), {c.verdict}"
        )
    return f"Acquitted means: within {100 * harm:.0f} points either way. " + "; ".join(said) + "."


def _tabulate(rows: Sequence[tuple[str, Paired]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            (suspect, c.what, c.n, c.before, c.after, c.lost, c.gained, *c.interval, c.verdict)
            for suspect, c in rows
        ],
        columns=[
            "suspect", "rate", "runs", "before", "after", "lost", "gained",
            "change, low", "change, high", "verdict",
        ],
    )  # fmt: skip
