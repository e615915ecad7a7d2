"""The experiment's central figure: what each arm does to answers, and what it does to loops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ..errors import SettingError
from ..experiments import MEASURES, ArmResult, compare
from .drawing import BLUE, GREEN, VERMILLION, Drawing, error_bars, escape_text, percent, style

Models = Mapping[str, Sequence[ArmResult]]

# Colour and shape of a model.
_LOOKS = ((BLUE, "circle"), (VERMILLION, "square"), (GREEN, "diamond"))
_BAD = ("loops", "early_loops", "runaways")
_BASE = "no penalty"


def draw_arms(models: Models, measures: Sequence[str] = ("right", "loops")) -> Drawing:
    """Draw rates of each arm with their 95 % intervals, an arm a row and a measure a panel.

    models: the arms of each, by the model's name. measures: names of MEASURES; those that no arm
    has are left out. Raise SettingError if none is left.
    """
    from plotly.subplots import make_subplots

    measures = [name for name in measures if _find(models, name)]
    if not measures:
        raise SettingError("no arm has runs of that kind; there is nothing to draw")
    names = list(dict.fromkeys(arm.name for arms in models.values() for arm in arms))
    figure = make_subplots(1, len(measures), shared_yaxes=True, horizontal_spacing=0.03)
    for place, (model, arms) in enumerate(models.items()):
        for column, name in enumerate(measures, 1):
            drawn = _points(model, arms, name, names, 0.26 * (place - (len(models) - 1) / 2))
            drawn.update(_look(place), showlegend=column == 1)
            figure.add_trace(drawn, 1, column)
    style(figure, _title(models, measures[0]), 190 + (24 + 10 * len(models)) * len(names))
    for column, name in enumerate(measures, 1):
        better = "left" if name in _BAD else "right"
        title = f"{MEASURES[name].title} ({better} is better)"
        figure.update_xaxes(title=title, row=1, col=column)
    figure.update_xaxes(range=(-0.03, 1.03), tickformat=".0%", dtick=0.2)
    ticks = {"tickvals": list(range(len(names))), "ticktext": list(map(escape_text, names))}
    figure.update_yaxes(range=(len(names) - 0.4, -0.6), **ticks)
    return Drawing(figure, _tell(models, measures), _tabulate(models, measures))


def _find(models: Models, measure: str) -> list[ArmResult]:
    """Return the arms that have runs of that measure."""
    return [arm for arms in models.values() for arm in arms if measure in arm.outcomes]


def _look(place: int) -> dict[str, Any]:
    """Return the colour and the shape of the model at a place."""
    colour, symbol = _LOOKS[place % len(_LOOKS)]
    return {"marker": {"symbol": symbol, "size": 10, "color": colour}, "error_x_color": colour}


def _points(
    model: str, arms: Sequence[ArmResult], measure: str, rows: Sequence[str], shift: float
) -> Any:
    """Return the arms that have a measure, each in the row of its name, moved down by `shift`."""
    import plotly.graph_objects as go

    names = [arm.name for arm in arms if measure in arm.outcomes]
    rates = [arm.rate(measure) for arm in arms if measure in arm.outcomes]
    shares = [each.share for each in rates]
    return go.Scatter(
        x=shares,
        y=[rows.index(name) + shift for name in names],
        error_x=error_bars(shares, [each.interval for each in rates], thickness=2, width=3),
        mode="markers",
        name=escape_text(model),
        legendgroup=model,
        hovertext=[
            f"{escape_text(f'{name}, {model}')}<br>{each.count} of {each.n}: {_show(each)}"
            for name, each in zip(names, rates, strict=True)
        ],
        hoverinfo="text",
    )


def _show(found: Any) -> str:
    low, high = found.interval
    return f"{percent(found.share)} ({percent(low)} to {percent(high)})"


def _base(arms: Sequence[ArmResult]) -> ArmResult:
    return next((arm for arm in arms if arm.name == _BASE), arms[0])


def _title(models: Models, measure: str) -> str:
    """Return what the worst arm of the first model does, on every model."""
    first = [arm for arm in next(iter(models.values())) if measure in arm.outcomes]
    choose = max if measure in _BAD else min
    worst = choose(first, key=lambda arm: arm.rate(measure).share)
    falls = []
    for model, arms in models.items():
        of = {arm.name: arm for arm in arms if measure in arm.outcomes}
        if worst.name in of:
            before, after = (each.rate(measure).share for each in (_base(arms), of[worst.name]))
            falls.append(f"{percent(before)} to {percent(after)} ({model})")
    return f"{worst.name}: {MEASURES[measure].title} from {' and '.join(falls)}"


def _tell(models: Models, measures: Sequence[str]) -> str:
    """Return which arms differ from no penalty, run by run, on each model."""
    said = []
    for model, arms in models.items():
        base = _base(arms)
        for name in (each for each in measures if each in base.outcomes):
            others = [arm for arm in arms if name in arm.outcomes and arm is not base]
            found = {arm.name: compare(arm, base, name).interval for arm in others}
            fewer = [arm for arm, (_, high) in found.items() if high < 0]
            more = [arm for arm, (low, _) in found.items() if low > 0]
            parts = [f"{model}, {MEASURES[name].title}: {_show(base.rate(name))} in {base.name!r}"]
            parts += [f"fewer in {'; '.join(fewer)}"] if fewer else []
            parts += [f"more in {'; '.join(more)}"] if more else []
            said.append("; ".join(parts if fewer or more else [*parts, "no arm that differs"]))
    return ". ".join(said) + "."


def _tabulate(models: Models, measures: Sequence[str]) -> pd.DataFrame:
    rows = [
        (model, arm.name, MEASURES[name].title, *_spread(arm.rate(name)))
        for model, arms in models.items()
        for arm in arms
        for name in measures
        if name in arm.outcomes
    ]
    return pd.DataFrame(rows, columns=["model", "arm", "measure", "count", "of", "low", "high"])


def _spread(found: Any) -> tuple[int, int, float, float]:
    return found.count, found.n, *found.interval
