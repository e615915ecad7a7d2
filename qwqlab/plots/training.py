"""The losses of training runs, a line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go

from .drawing import BLUE, BROWN, GREEN, PURPLE, VERMILLION, Drawing, style

_COLORS = (BLUE, VERMILLION, GREEN, PURPLE, BROWN)
# One more than the colours, so that thirty runs look different.
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


def draw_losses(runs: Mapping[str, Sequence[float]]) -> Drawing:
    """Draw the mean loss, in nats a learnt token, of each step of the optimiser: a line a run."""
    figure = style(go.Figure(), "Loss of each step", 380)
    for place, (name, losses) in enumerate(runs.items()):
        figure.add_scatter(
            x=list(range(1, len(losses) + 1)),
            y=list(losses),
            name=name,
            mode="lines+markers",
            line={
                "color": _COLORS[place % len(_COLORS)],
                "dash": _DASHES[place % len(_DASHES)],
            },
            marker={"size": 5},
        )
    figure.update_xaxes(title="step")
    figure.update_yaxes(title="loss, nats a learnt token", rangemode="tozero")
    ends = [
        f"{name} from {losses[0]:.2f} to {losses[-1]:.2f}"
        for name, losses in runs.items()
        if losses
    ]
    table = pd.DataFrame(
        {"run": name, "step": step, "loss": loss}
        for name, losses in runs.items()
        for step, loss in enumerate(losses, 1)
    )
    return Drawing(figure, f"Loss of the first and of the last step: {', '.join(ends)}.", table)
