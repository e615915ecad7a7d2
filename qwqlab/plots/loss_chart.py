"""The losses of training runs, a line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go

from .drawing import BLUE, BROWN, GREEN, PURPLE, VERMILLION, Drawing, style

COLORS = (BLUE, VERMILLION, GREEN, PURPLE, BROWN)
# One more than the colours, so that thirty runs look different.
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
TITLE = "Loss of each step"


def draw_losses(runs: Mapping[str, Sequence[float]]) -> Drawing:
    """Mean loss in nats a learnt token against the step of the optimiser."""
    figure = style(go.Figure(), TITLE, 380)
    for place, (name, losses) in enumerate(runs.items()):
        figure.add_trace(make_line(name, losses, place))
    label_axes(figure)
    return Drawing(figure, tell(runs), tabulate(runs))


def tell(runs: Mapping[str, Sequence[float]]) -> str:
    """Where each run began and ended, in a sentence."""
    parts = [
        f"{name} from {losses[0]:.2f} to {losses[-1]:.2f}"
        for name, losses in runs.items()
        if losses
    ]
    return f"Loss of the first and of the last step: {', '.join(parts)}."


def tabulate(runs: Mapping[str, Sequence[float]]) -> pd.DataFrame:
    """A row for each step of each run."""
    rows = [
        {"run": name, "step": step, "loss": loss}
        for name, losses in runs.items()
        for step, loss in enumerate(losses, 1)
    ]
    return pd.DataFrame(rows)


def make_line(name: str, losses: Sequence[float], place: int = 0) -> go.Scatter:
    """One run's line."""
    color, dash = COLORS[place % len(COLORS)], DASHES[place % len(DASHES)]
    return go.Scatter(
        x=list(range(1, len(losses) + 1)),
        y=list(losses),
        name=name,
        mode="lines+markers",
        line={"color": color, "dash": dash},
        marker={"size": 5},
    )


def label_axes(figure: go.Figure) -> None:
    """What the axes are, with units."""
    figure.update_xaxes(title="step")
    figure.update_yaxes(title="loss, nats a learnt token", rangemode="tozero")
