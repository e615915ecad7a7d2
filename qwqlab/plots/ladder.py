"""A ladder of quants as a figure: what bytes buy in perplexity and in speed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .drawing import (
    BLUE,
    LOG_AXIS,
    PURPLE,
    VERMILLION,
    WIDTH,
    Drawing,
    escape_text,
    label_points,
    percent,
    style,
)

if TYPE_CHECKING:
    from ..models import RungResult

_SPEED = "tokens a second, log scale"
# Column, attribute of a rung, name in the legend, marker.
_TRACES: tuple[tuple[int, str, str, dict[str, Any]], ...] = (
    (1, "perplexity", "perplexity, ± its standard error",
     {"symbol": "circle", "color": VERMILLION}),
    (2, "tokens_per_second_generate", "generating, one sequence",
     {"symbol": "square", "color": BLUE}),
    (2, "tokens_per_second_prompt", "reading a prompt",
     {"symbol": "triangle-up-open", "color": PURPLE}),
)  # fmt: skip


def draw_ladder(rows: Sequence[RungResult]) -> Drawing:
    """Draw size against perplexity, and against speed: a quant a point."""
    rungs = sorted(rows, key=lambda rung: rung.bytes)
    figure = make_subplots(1, 2, horizontal_spacing=0.1)
    style(figure, _title(rungs), 500)
    x = _widen([rung.bytes / 1e6 for rung in rungs])
    errors = [rung.perplexity + sign * rung.perplexity_error for rung in rungs for sign in (-1, 1)]
    speeds = [getattr(rung, name) for rung in rungs for column, name, *_ in _TRACES if column == 2]
    ranges = {1: _widen(errors), 2: _widen(map(math.log10, speeds))}
    for column, values, name, marker in _TRACES:
        trace = go.Scatter(
            x=[rung.bytes / 1e6 for rung in rungs],
            y=[getattr(rung, values) for rung in rungs],
            text=[escape_text(rung.name) for rung in rungs],
            mode="markers",
            name=name,
            marker={"size": 11, "line": {"width": 2}, **marker},
        )
        if column == 1:
            trace.error_y = {"array": [rung.perplexity_error for rung in rungs], "thickness": 1}
        figure.add_trace(trace, row=1, col=column)
        names: dict[tuple[float, float], str] = {}
        for rung, y in zip(rungs, trace.y, strict=True):
            point = rung.bytes / 1e6, y if column == 1 else math.log10(y)
            names[point] = f"{names[point]}, {rung.name}" if point in names else rung.name
        n = "" if column == 1 else str(column)
        size = WIDTH / 2 - 90, 350
        label_points(figure, names, x, ranges[column], size, xref=f"x{n}", yref=f"y{n}")
    figure.update_xaxes(title="size of the file, MB (10^6 bytes)", range=x)
    figure.update_yaxes(title="perplexity (lower is better)", range=ranges[1], col=1)
    figure.update_yaxes(title=_SPEED, range=ranges[2], col=2, **LOG_AXIS)
    table = pd.DataFrame(
        {
            "quant": rung.name,
            "MB": rung.bytes / 1e6,
            "bits a weight": rung.bits_per_weight,
            "perplexity": rung.perplexity,
            "±": rung.perplexity_error,
            "tokens/s generated": rung.tokens_per_second_generate,
            "tokens/s read": rung.tokens_per_second_prompt,
        }
        for rung in rungs
    )
    return Drawing(figure, _tell(rungs), table)


def _title(rungs: Sequence[RungResult]) -> str:
    least, most = rungs[0], rungs[-1]
    rise = least.perplexity / most.perplexity - 1
    return (
        f"{least.name} takes {percent(least.bytes / most.bytes)} of {most.name}'s bytes, "
        f"with {percent(abs(rise))} {'more' if rise > 0 else 'less'} perplexity"
    )


def _tell(rungs: Sequence[RungResult]) -> str:
    best = min(rungs, key=lambda rung: rung.perplexity)
    worst = max(rungs, key=lambda rung: rung.perplexity)
    fast = max(rungs, key=lambda rung: rung.tokens_per_second_generate)
    return (
        f"The lowest perplexity is {best.perplexity:.2f} ({best.name}, {best.bytes / 1e6:.0f} MB), "
        f"the highest {worst.perplexity:.2f} ({worst.name}, {worst.bytes / 1e6:.0f} MB); "
        f"{fast.name} generates fastest, {fast.tokens_per_second_generate:.0f} tokens a second."
    )


def _widen(values: Iterable[float], by: float = 0.15) -> tuple[float, float]:
    """Return a range with room around the values."""
    found = list(values)
    low, high = min(found), max(found)
    room = by * (high - low) or abs(low) * by or 1.0
    return low - room, high + room
