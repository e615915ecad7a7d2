"""Errors of few bits as figures: by layer and kind, as a heat map, against bits for all types."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .drawing import BLUE, BROWN, GREEN, GREY, INK, PURPLE, VERMILLION, WIDTH, Drawing, style
from .labels import Frame, annotate

STYLES = {
    "q_proj": (BLUE, "circle"),
    "k_proj": (BLUE, "x"),
    "v_proj": (VERMILLION, "diamond"),
    "o_proj": (BROWN, "square"),
    "gate_proj": (GREEN, "triangle-up"),
    "up_proj": (GREEN, "cross"),
    "down_proj": (PURPLE, "triangle-down"),
}
BOUNDS = {
    "shannon_4bit": "Shannon's bound, 4 bits",
    "lloyd_max_16": "Lloyd-Max, 16 levels",
    "nf4_gaussian": "nf4 on a Gaussian",
}
LEAST = 1e-6  # an error below this is that of weights which lay on the type's own grid
HEAVY = 5.0  # a kurtosis above this is named as the reason: 3 is a Gaussian's, 6 a Laplacian's


class Module(Protocol):
    """What a figure reads of a module's error."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def layer(self) -> int | None: ...
    @property
    def weight_rel_mse(self) -> float: ...
    @property
    def output_rel_mse(self) -> float | None: ...
    @property
    def kurtosis(self) -> float: ...


class Errors(Protocol):
    """What a figure reads of a model's errors."""

    @property
    def codec(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def modules(self) -> Sequence[Module]: ...
    @property
    def theory(self) -> Mapping[str, float]: ...


def draw_errors(errors: Errors, n_outliers: int = 3) -> Drawing:
    """Weight error and output error of each module by its layer, a line for each kind.

    The bounds of theory stand beside the weights; the largest weight errors are named, with their
    kurtosis where it explains them.
    """
    modules = [each for each in errors.modules if each.layer is not None]
    figure = make_subplots(
        1, 2, horizontal_spacing=0.09, subplot_titles=("of the weights", "of the outputs")
    )
    for kind in dict.fromkeys(each.kind for each in modules):
        color, symbol = STYLES.get(kind, (GREY, "circle"))
        chosen = [each for each in modules if each.kind == kind]
        for column, metric in enumerate(("weight_rel_mse", "output_rel_mse"), start=1):
            figure.add_trace(
                go.Scatter(
                    x=[each.layer for each in chosen],
                    y=[getattr(each, metric) for each in chosen],
                    name=kind,
                    legendgroup=kind,
                    showlegend=column == 1,
                    mode="lines+markers",
                    line={"color": color, "width": 1.2},
                    marker={"symbol": symbol, "size": 6, "color": color},
                ),
                row=1,
                col=column,
            )
    for place, (name, words) in enumerate(BOUNDS.items()):
        if name in errors.theory:
            figure.add_hline(
                errors.theory[name],
                line={"dash": ("dot", "dash", "dashdot")[place], "color": INK, "width": 1.2},
                annotation={"text": words, "font": {"size": 11}, "yshift": -16 * (place == 2)},
                annotation_position="top left",
                row=1,
                col=1,
            )
    worst = _find_worst(modules, n_outliers)
    for place, each in enumerate(worst):
        figure.add_annotation(
            x=each.layer, y=each.weight_rel_mse, row=1, col=1,
            text=f"{each.layer}.{each.kind}, kurtosis {each.kurtosis:.1f}",
            ax=60, ay=-16 - 16 * place, font={"size": 11}, arrowwidth=0.8, arrowcolor=INK,
        )  # fmt: skip
    title = f"Error of {errors.codec} by layer: the weights differ little, the outputs much"
    style(figure, title, 480)
    figure.update_layout(legend={"y": -0.24})
    figure.update_xaxes(title="layer")
    figure.update_yaxes(title="relative mean squared error", rangemode="tozero")
    return Drawing(figure, _tell(errors, modules, worst), tabulate(modules))


def draw_heat(errors: Errors) -> Drawing:
    """Output error of each module, kinds by layers, the darker the worse."""
    modules = [each for each in errors.modules if each.layer is not None]
    kinds = list(dict.fromkeys(each.kind for each in modules))
    layers = sorted({each.layer for each in modules if each.layer is not None})
    found = {(each.kind, each.layer): each.output_rel_mse for each in modules}
    figure = style(go.Figure(), f"Output error of {errors.codec}, module by module", 320)
    figure.add_trace(
        go.Heatmap(
            x=layers,
            y=kinds,
            z=[[found.get((kind, layer)) for layer in layers] for kind in kinds],
            colorscale="Cividis_r",
            colorbar={"title": {"text": "relative<br>MSE"}},
            hovertemplate="layer %{x}, %{y}: %{z:.4f}<extra></extra>",
        )
    )
    figure.update_xaxes(title="layer", showgrid=False)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    known = [each for each in modules if each.output_rel_mse is not None]
    means = {
        kind: sum(e.output_rel_mse or 0 for e in known if e.kind == kind)
        / max(1, sum(e.kind == kind for e in known))
        for kind in kinds
    }
    order = sorted(means, key=lambda kind: -means[kind])
    summary = "Mean output error, the largest first: " + ", ".join(
        f"{kind} {means[kind]:.4f}" for kind in order
    )
    return Drawing(figure, f"{summary}.", tabulate(modules))


def draw_types(
    rows: Sequence[tuple[str, float, float, float]], shannon: Sequence[float]
) -> Drawing:
    """Weight error against bits a weight, a type a point.

    rows: name, bits, error on the model's weights, error on a Gaussian. shannon: the bound at each
    row's bits.
    """
    figure = style(go.Figure(), "Error against size: what a bit buys", 460)
    ordered = sorted(zip(rows, shannon, strict=True), key=lambda pair: pair[0][1])
    bits = [row[1] for row, _ in ordered]
    figure.add_trace(
        go.Scatter(x=bits, y=[bound for _, bound in ordered], name="Shannon's bound, Gaussian",
                   mode="lines", line={"dash": "dot", "color": INK})
    )  # fmt: skip
    for place, name, color, symbol in (
        (2, "the model's weights", BLUE, "circle"),
        (3, "a Gaussian", VERMILLION, "x-thin-open"),
    ):
        figure.add_trace(
            go.Scatter(
                x=bits,
                y=[row[place] or None for row, _ in ordered],
                text=[row[0] for row, _ in ordered],
                name=name,
                mode="markers",
                marker={"size": 10, "color": color, "symbol": symbol, "line": {"width": 1.5}},
                hovertemplate="%{text}: %{y:.5f} at %{x:.2f} bits<extra></extra>",
            )
        )
    shown = {(row[1], math.log10(row[2])): row[0] for row, _ in ordered if row[2] > LEAST}
    ends = math.log10(LEAST), math.log10(max(row[2] for row, _ in ordered)) + 0.4
    frame = Frame((bits[0] - 0.3, bits[-1] + 0.5), ends, (WIDTH - 100, 340))
    figure.update_xaxes(range=frame.x)
    figure.update_yaxes(range=frame.y)
    annotate(figure, shown, frame)
    figure.update_xaxes(title="bits a weight, scales included")
    figure.update_yaxes(
        title="relative mean squared error", type="log", dtick=1, exponentformat="e"
    )
    figure.update_layout(legend={"y": -0.2})
    table = pd.DataFrame(
        [(*row, bound) for row, bound in ordered],
        columns=["type", "bits", "error, weights", "error, Gaussian", "Shannon"],
    )
    near = [row for row, _ in ordered if 4.4 <= row[1] <= 4.6]
    best = min(near or [row for row, _ in ordered], key=lambda row: row[2])
    exact = [row[0] for row, _ in ordered if row[2] <= LEAST]
    summary = (
        f"Of the types with about 4.5 bits a weight {best[0]} loses least of the model's weights "
        f"({best[2]:.4f}); on a Gaussian every type lies above Shannon's bound."
    )
    if exact:
        summary += f" {' and '.join(exact)} loses next to nothing of the weights and is not drawn."
    return Drawing(figure, summary, table)


def tabulate(modules: Sequence[Module]) -> pd.DataFrame:
    """A row for each module."""
    return pd.DataFrame(
        [
            {
                "module": each.name,
                "weight error": each.weight_rel_mse,
                "output error": each.output_rel_mse,
                "kurtosis": each.kurtosis,
            }
            for each in modules
        ]
    )


def _find_worst(modules: Sequence[Module], n: int) -> list[Module]:
    return sorted(modules, key=lambda each: -each.weight_rel_mse)[:n]


def _tell(errors: Errors, modules: Sequence[Module], worst: Sequence[Module]) -> str:
    weights = [each.weight_rel_mse for each in modules]
    outputs = [each.output_rel_mse for each in modules if each.output_rel_mse is not None]
    reasons = ", ".join(
        f"{each.name} ({each.weight_rel_mse:.4f}, kurtosis {each.kurtosis:.1f}"
        f"{', heavy tails' if each.kurtosis > HEAVY else ''})"
        for each in worst
    )
    said = f"Weight errors lie between {min(weights):.4f} and {max(weights):.4f}"
    if outputs:
        said += f", output errors between {min(outputs):.4f} and {max(outputs):.4f}"
    said += f"; the largest weight errors: {reasons}."
    if errors.precision not in ("16 or 32 bits", "F16", "BF16", "F32"):
        said += f" The reference lay on a {errors.precision} grid before."
    return said
