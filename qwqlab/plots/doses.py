"""The dose curves: the more of a setting, the fewer loops, and what that costs in right answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go

from ..errors import SettingError
from ..experiments import DOSES, MEASURES, ArmResult, compare
from .drawing import (
    BLUE,
    BROWN,
    GREEN,
    INK,
    PURPLE,
    VERMILLION,
    WIDTH,
    Drawing,
    error_bars,
    label_points,
    percent,
    style,
)

LITTLE = 0.1
"""Harm that counts as little: the whole interval of what a dose costs is below it, 10 points."""

_HEIGHT = 680
_LOOKS = (
    (VERMILLION, "circle"), (BLUE, "square"), (GREEN, "diamond"), (PURPLE, "triangle-up"),
    (BROWN, "x"),
)  # fmt: skip
_BASE = "no penalty"


def draw_doses(results: Sequence[ArmResult], good: str = "right") -> Drawing:
    """Draw loops against right answers, a curve for each setting, from no dose to the largest.

    results: the arms of `list_doses` and "no penalty". good: the measure on the horizontal axis.
    Raise SettingError if one of the arms is missing.
    """
    arms = {arm.name: arm for arm in results}
    curves = {
        name: [_BASE, *(f"{name} {dose:g}" for dose in doses)] for name, doses in DOSES.items()
    }
    for wanted in (arm for curve in curves.values() for arm in curve):
        if wanted not in arms:
            raise SettingError(f"there are no runs of the arm {wanted!r}; run all of `list_doses`")
    figure = go.Figure()
    points: dict[tuple[float, float], str] = {}
    for (name, curve), (colour, symbol) in zip(curves.items(), _LOOKS, strict=True):
        x = [arms[arm].rate(good).share for arm in curve]
        y = [arms[arm].rate("loops").share for arm in curve]
        bars = {"color": colour, "width": 3}
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines+markers",
            name=name,
            line={"color": colour, "width": 1.5},
            marker={"color": colour, "symbol": symbol, "size": 10},
            error_x=error_bars(x, [arms[arm].rate(good).interval for arm in curve], **bars),
            error_y=error_bars(y, [arms[arm].rate("loops").interval for arm in curve], **bars),
            opacity=0.8,
        )
        for arm, point in zip(curve, zip(x, y, strict=True), strict=True):
            label = arm.removeprefix(f"{name} ")
            points[point] = f"{points[point]}, {label}" if point in points else label
        points[x[0], y[0]] = _BASE
    figure.add_scatter(
        x=[arms[_BASE].rate(good).share],
        y=[arms[_BASE].rate("loops").share],
        mode="markers",
        name=_BASE,
        marker={"color": INK, "symbol": "star", "size": 14},
    )
    style(figure, _title(arms, curves, good), _HEIGHT)
    figure.update_xaxes(title=f"{MEASURES[good].title} (right is better)", tickformat=".0%")
    figure.update_yaxes(title="long runs that loop (lower is better)", tickformat=".0%")
    top = max(arm.rate("loops").interval[1] for arm in arms.values())
    right = max(arm.rate(good).interval[1] for arm in arms.values())
    ranges = (-0.02, right + 0.03), (-0.03, top + 0.03)
    figure.update_xaxes(range=ranges[0])
    figure.update_yaxes(range=ranges[1])
    label_points(figure, points, *ranges, (WIDTH - 110, _HEIGHT - 150))
    table = pd.DataFrame(
        [
            (arm, *_spread(arms[arm], good), *_spread(arms[arm], "loops"))
            for arm in dict.fromkeys(arm for curve in curves.values() for arm in curve)
        ],
        columns=["arm", good, "low", "high", "loops", "low", "high"],
    )
    return Drawing(figure, _tell(arms, curves, good), table)


def _spread(arm: ArmResult, measure: str) -> tuple[float, float, float]:
    found = arm.rate(measure)
    return found.share, *found.interval


def _find_best(
    arms: Mapping[str, ArmResult], curves: Mapping[str, Sequence[str]], good: str
) -> tuple[str, float, float]:
    """Return the dose that stops most loops of those that surely cost little, or no penalty."""
    base = arms[_BASE]
    kept = [
        arm
        for curve in curves.values()
        for arm in curve[1:]
        if compare(arms[arm], base, good).interval[0] > -LITTLE
    ]
    best = min(kept or [_BASE], key=lambda arm: arms[arm].rate("loops").share)
    return best, arms[best].rate("loops").share, arms[best].rate(good).share


def _title(arms: Mapping[str, ArmResult], curves: Mapping[str, Sequence[str]], good: str) -> str:
    best, loops, right = _find_best(arms, curves, good)
    before, had = arms[_BASE].rate("loops").share, arms[_BASE].rate(good).share
    return (
        f"{best} stops most loops of all that cost at most {100 * LITTLE:.0f} points: "
        f"loops {percent(before)} to {percent(loops)}, {MEASURES[good].title} {percent(had)} to "
        f"{percent(right)}"
    )


def _tell(arms: Mapping[str, ArmResult], curves: Mapping[str, Sequence[str]], good: str) -> str:
    said = []
    for name, curve in curves.items():
        last = arms[curve[-1]]
        least = min(curve[1:], key=lambda arm: arms[arm].rate("loops").share)
        said.append(
            f"{name}: fewest loops at {least.removeprefix(f'{name} ')}, "
            f"{percent(arms[least].rate('loops').share)}, with "
            f"{percent(arms[least].rate(good).share)} {MEASURES[good].title}; at the largest dose "
            f"{percent(last.rate(good).share)}"
        )
    return ". ".join(said) + "."
