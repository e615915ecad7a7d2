"""The experiment's central figure: what a setting gains in loops against what it costs in code."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go

from ..errors import SettingError
from ..sampling import ARTICLE_ORDER, DEFAULT_ORDER
from .drawing import (
    BLUE,
    VERMILLION,
    WIDTH,
    Drawing,
    error_bars,
    escape_text,
    label_points,
    percent,
    style,
)

if TYPE_CHECKING:
    from ..experiments import ArmResult

Row = dict[str, Any]

_HEIGHT = 680
# The shape shows the order; filling and colour, whether a penalty is at work.
_SHAPES = {
    "llama.cpp's order": "circle",
    "the article's order": "square",
    "another order": "diamond",
}


def draw_trade_off(results: Sequence[ArmResult]) -> Drawing:
    """Draw the rate of loops against the rate of valid code, an arm a point with 95 % intervals.

    The best arms are at the lower right. Raise SettingError if no arm has runs of both kinds.
    """
    rows = [_describe(arm) for arm in results if arm.runs and arm.long_runs]
    if not rows:
        raise SettingError("no arm has both runs on code and long runs; there is nothing to draw")
    figure = go.Figure()
    for kind in itertools.product(_SHAPES, (True, False)):
        if alike := [row for row in rows if row["kind"] == kind]:
            figure.add_trace(_points(alike, *kind))
    style(figure, _title(rows), _HEIGHT)
    top = min(1.0, max([0.3, *(row["loops_interval"][1] for row in rows)]))
    x, y = (-0.03, 1.03), (-0.05, top + 0.03)
    scale: dict[str, Any] = {"tickformat": ".0%", "dtick": 0.1}
    figure.update_xaxes(title="runs with valid code (right is better)", range=x, **scale)
    figure.update_yaxes(title="runs that loop (lower is better)", range=y, **scale)
    names: dict[tuple[float, float], list[str]] = {}
    for row in rows:
        names.setdefault((row["valid_code"], row["loops"]), []).append(row["label"])
    joined = {point: _join_names(text) for point, text in names.items()}
    label_points(figure, joined, x, y, (WIDTH - 110, _HEIGHT - 150))
    table = pd.DataFrame(rows).drop(columns=["kind", "label"])
    return Drawing(figure, _tell(rows), table)


def _name_order(order: Sequence[str]) -> str:
    """Return whose order it is, wherever it has `penalties`.

    >>> _name_order(("top_k", "top_p", "min_p", "temperature", "penalties", "dry", "typ_p", "xtc"))
    "the article's order"
    """
    rest = [stage for stage in order if stage != "penalties"]
    if rest == [stage for stage in DEFAULT_ORDER if stage != "penalties"]:
        return "llama.cpp's order"
    return "the article's order" if rest == list(ARTICLE_ORDER) else "another order"


def _join_names(names: Sequence[str]) -> str:
    """Return one label for arms at one place: names that differ in their ending share a line.

    >>> _join_names(["greedy", "article's list, 1.1", "article's list, 1.5"]).splitlines()
    ['greedy', "article's list, 1.1 and 1.5"]
    """
    endings: dict[str, list[str]] = {}
    for name in names:
        head, comma, end = name.rpartition(", ")
        endings.setdefault(head + comma, []).append(end)
    return "\n".join(head + " and ".join(ends) for head, ends in endings.items())


def _describe(arm: ArmResult) -> Row:
    return {
        "arm": arm.name,
        "order": ";".join(arm.order),
        "repeat_penalty": arm.repeat_penalty,
        "runs": arm.runs,
        "valid_code": arm.valid_code / arm.runs,
        "valid_code_interval": tuple(arm.valid_code_interval),
        "long_runs": arm.long_runs,
        "loops": arm.loops / arm.long_runs,
        "loops_interval": tuple(arm.loops_interval),
        "runaways": arm.runaways / arm.long_runs,
        "runaways_interval": tuple(arm.runaways_interval),
        "kind": (_name_order(arm.order), _is_penalised(arm)),
        "label": _name(arm),
    }


def _is_penalised(arm: ArmResult) -> bool:
    off = arm.repeat_penalty == 1 and arm.presence_penalty == 0
    return "penalties" in arm.order and not off


def _name(arm: ArmResult) -> str:
    """Return an arm's name with its repeat penalty, unless the name has it or it is off."""
    penalty = f"{arm.repeat_penalty:g}"
    return arm.name if penalty in arm.name or penalty == "1" else f"{arm.name} ({penalty})"


def _points(rows: Sequence[Row], shape: str, penalised: bool) -> Any:
    symbol = _SHAPES[shape] if penalised else f"{_SHAPES[shape]}-open"
    colour = VERMILLION if penalised else BLUE
    x, y = [row["valid_code"] for row in rows], [row["loops"] for row in rows]
    look = {"width": 3, "color": colour}
    return go.Scatter(
        x=x,
        y=y,
        error_x=error_bars(x, [row["valid_code_interval"] for row in rows], **look),
        error_y=error_bars(y, [row["loops_interval"] for row in rows], **look),
        mode="markers",
        name=f"{shape}, {'penalties in' if penalised else 'penalties out or at 1'}",
        marker={"symbol": symbol, "size": 13, "color": colour, "line": {"width": 2}},
        hovertext=[_hover(row) for row in rows],
        hoverinfo="text",
    )


def _hover(row: Row) -> str:
    lines = [escape_text(row["label"]), escape_text(row["order"])]
    for name, total in (("valid_code", "runs"), ("loops", "long_runs"), ("runaways", "long_runs")):
        lines.append(f"{name}: {_with_interval(row, name)} of {row[total]}")
    return "<br>".join(lines)


def _best_and_worst(rows: Sequence[Row]) -> tuple[Row, Row]:
    """Return the arms with the most and the least valid code."""
    by_code = sorted(rows, key=lambda row: -row["valid_code"])
    return by_code[0], by_code[-1]


def _title(rows: Sequence[Row]) -> str:
    best, worst = _best_and_worst(rows)
    rates = [row["loops"] for row in rows]
    return (
        f"Valid code from {percent(worst['valid_code'])} ({worst['arm']}) "
        f"to {percent(best['valid_code'])} ({best['arm']}); "
        f"loops from {percent(min(rates))} to {percent(max(rates))}"
    )


def _tell(rows: Sequence[Row]) -> str:
    best, worst = _best_and_worst(rows)
    apart = best["valid_code_interval"][0] > worst["valid_code_interval"][1]
    return (
        f"Most valid code: {best['arm']} with {_with_interval(best, 'valid_code')}; least: "
        f"{worst['arm']} with {_with_interval(worst, 'valid_code')}; their 95 % intervals "
        f"{'are apart' if apart else 'overlap'}. Beaten by no other arm in both valid code and "
        f"loops: {'; '.join(_find_unbeaten(rows))}."
    )


def _find_unbeaten(rows: Sequence[Row]) -> list[str]:
    """Return arms such that no other is at least as good in both rates and better in one."""
    rates = [(row["arm"], row["valid_code"], row["loops"]) for row in rows]
    return [
        name
        for name, valid, bad in rates
        if not any(v >= valid and b <= bad and (v, b) != (valid, bad) for _, v, b in rates)
    ]


def _with_interval(row: Row, name: str) -> str:
    low, high = row[f"{name}_interval"]
    return f"{percent(row[name])} ({percent(low)} to {percent(high)})"
