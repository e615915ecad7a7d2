"""What few bits lose, as figures.

`draw_errors` and `draw_heat` show the error of each module, `draw_types` that of each way to store
a number, `draw_quality` and `draw_proxies` what a choice of modules costs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .drawing import (
    BLUE,
    BROWN,
    GREEN,
    GREY,
    INK,
    LOG_AXIS,
    PURPLE,
    VERMILLION,
    WIDTH,
    Drawing,
    error_bars,
    label_points,
    style,
)

if TYPE_CHECKING:
    from ..quant import ModuleError, Quality, QuantErrors

_STYLES = {
    "q_proj": (BLUE, "circle"),
    "k_proj": (BLUE, "x"),
    "v_proj": (VERMILLION, "diamond"),
    "o_proj": (BROWN, "square"),
    "gate_proj": (GREEN, "triangle-up"),
    "up_proj": (GREEN, "cross"),
    "down_proj": (PURPLE, "triangle-down"),
}
_BOUNDS = {
    "shannon_4bit": "Shannon's bound, 4 bits",
    "lloyd_max_16": "Lloyd-Max, 16 levels",
    "nf4_gaussian": "nf4 on a Gaussian",
}
_LEAST = 1e-6  # an error below this is that of weights which lay on the type's own grid
_HEAVY = 5.0  # a kurtosis above this is named as the reason: 3 is a Gaussian's, 6 a Laplacian's
Variant = tuple[str, float, "Quality", bool]
"""A choice of modules: name, extra bytes in percent, quality, and whether the selector chose it."""


def draw_errors(errors: QuantErrors) -> Drawing:
    """Draw weight error and output error of each module by its layer, a line for each kind.

    Theory's bounds are lines beside the weights; the largest weight errors are named, with their
    kurtosis where it explains them.
    """
    modules = [each for each in errors.modules if each.layer is not None]
    figure = make_subplots(
        1, 2, horizontal_spacing=0.09, subplot_titles=("of the weights", "of the outputs")
    )
    for kind in dict.fromkeys(each.kind for each in modules):
        color, symbol = _STYLES.get(kind, (GREY, "circle"))
        chosen = [each for each in modules if each.kind == kind]
        for column, metric in enumerate(("weight_rel_mse", "output_rel_mse"), start=1):
            figure.add_scatter(
                x=[each.layer for each in chosen],
                y=[getattr(each, metric) for each in chosen],
                name=kind,
                legendgroup=kind,
                showlegend=column == 1,
                mode="lines+markers",
                line={"color": color, "width": 1.2},
                marker={"symbol": symbol, "size": 6, "color": color},
                row=1,
                col=column,
            )
    for place, (name, words) in enumerate(_BOUNDS.items()):
        if name in errors.theory:
            figure.add_hline(
                errors.theory[name],
                line={"dash": ("dot", "dash", "dashdot")[place], "color": INK, "width": 1.2},
                annotation={"text": words, "font": {"size": 11}, "yshift": -16 * (place == 2)},
                annotation_position="top left",
                row=1,
                col=1,
            )
    worst = sorted(modules, key=lambda each: -each.weight_rel_mse)[:3]
    for place, each in enumerate(worst):
        figure.add_annotation(
            x=each.layer, y=each.weight_rel_mse, row=1, col=1,
            text=f"{each.layer}.{each.kind}, kurtosis {each.kurtosis:.1f}",
            ax=60, ay=-16 - 16 * place, font={"size": 11}, arrowwidth=0.8, arrowcolor=INK,
        )  # fmt: skip
    title = f"Error of {errors.codec} by layer: the weights differ little, the outputs much"
    style(figure, title, 480)
    figure.update_layout(margin={"t": 85})  # room for the titles of both halves
    figure.update_xaxes(title="layer")
    figure.update_yaxes(title="relative mean squared error", rangemode="tozero")
    return Drawing(figure, _tell_errors(errors, modules, worst), _tabulate_modules(modules))


def draw_heat(errors: QuantErrors) -> Drawing:
    """Draw the output error of each module, kinds by layers, the darker the worse."""
    modules = [each for each in errors.modules if each.layer is not None]
    kinds = list(dict.fromkeys(each.kind for each in modules))
    layers = sorted({each.layer for each in modules if each.layer is not None})
    found = {(each.kind, each.layer): each.output_rel_mse for each in modules}
    figure = style(go.Figure(), f"Output error of {errors.codec}, module by module", 320)
    figure.update_layout(margin={"b": 60})
    figure.add_heatmap(
        x=layers,
        y=kinds,
        z=[[found.get((kind, layer)) for layer in layers] for kind in kinds],
        colorscale="Cividis_r",
        colorbar={"title": {"text": "relative<br>MSE"}},
        hovertemplate="layer %{x}, %{y}: %{z:.4f}<extra></extra>",
    )
    figure.update_xaxes(title="layer", showgrid=False)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    table = _tabulate_modules(modules)
    means = table["output error"].astype(float).groupby([each.kind for each in modules]).mean()
    order = means.sort_values(ascending=False).items()
    said = ", ".join(f"{kind} {mean:.4f}" for kind, mean in order)
    return Drawing(figure, f"Mean output error, the largest first: {said}.", table)


def draw_types(
    rows: Sequence[tuple[str, float, float, float]], shannon: Sequence[float]
) -> Drawing:
    """Draw weight error against bits a weight, a type a point.

    rows: name, bits, error on the model's weights, error on a Gaussian. shannon: the bound at each
    row's bits.
    """
    figure = style(go.Figure(), "Error against size: what a bit buys", 460)
    table = pd.DataFrame(
        [(*row, bound) for row, bound in zip(rows, shannon, strict=True)],
        columns=["type", "bits", "error, weights", "error, Gaussian", "Shannon"],
    ).sort_values("bits")
    bits, weights = table["bits"], table["error, weights"]
    figure.add_scatter(
        x=list(bits), y=list(table["Shannon"]), name="Shannon's bound, Gaussian",
        mode="lines", line={"dash": "dot", "color": INK},
    )  # fmt: skip
    for column, name, color, symbol in (
        ("error, weights", "the model's weights", BLUE, "circle"),
        ("error, Gaussian", "a Gaussian", VERMILLION, "x-thin-open"),
    ):
        figure.add_scatter(
            x=list(bits),
            y=[error or None for error in table[column]],
            text=list(table["type"]),
            name=name,
            mode="markers",
            marker={"size": 10, "color": color, "symbol": symbol, "line": {"width": 1.5}},
            hovertemplate="%{text}: %{y:.5f} at %{x:.2f} bits<extra></extra>",
        )
    drawn, exact = table[weights > _LEAST], list(table["type"][weights <= _LEAST])
    points = zip(drawn["bits"], drawn["error, weights"].map(math.log10), strict=True)
    ends = math.log10(_LEAST), math.log10(weights.max()) + 0.4
    span = bits.min() - 0.3, bits.max() + 0.5
    names = dict(zip(points, drawn["type"], strict=True))
    label_points(figure, names, span, ends, (WIDTH - 100, 310))
    figure.update_xaxes(title="bits a weight, scales included", range=span)
    figure.update_yaxes(
        title="relative mean squared error", range=ends, type="log", dtick=1, exponentformat="e"
    )
    near = table[bits.between(4.4, 4.6)]
    best = (table if near.empty else near).sort_values("error, weights").iloc[0]
    summary = (
        f"Of the types with about 4.5 bits a weight {best['type']} loses least of the model's "
        f"weights ({best['error, weights']:.4f}); on a Gaussian every type lies above Shannon's "
        "bound."
    )
    if exact:
        summary += f" {' and '.join(exact)} loses next to nothing of the weights and is not drawn."
    return Drawing(figure, summary, table)


def _tabulate_modules(modules: Sequence[ModuleError]) -> pd.DataFrame:
    return pd.DataFrame(
        [(each.name, each.weight_rel_mse, each.output_rel_mse, each.kurtosis) for each in modules],
        columns=["module", "weight error", "output error", "kurtosis"],
    )


def _tell_errors(
    errors: QuantErrors, modules: Sequence[ModuleError], worst: Sequence[ModuleError]
) -> str:
    weights = [each.weight_rel_mse for each in modules]
    outputs = [each.output_rel_mse for each in modules if each.output_rel_mse is not None]
    reasons = ", ".join(
        f"{each.name} ({each.weight_rel_mse:.4f}, kurtosis {each.kurtosis:.1f}"
        f"{', heavy tails' if each.kurtosis > _HEAVY else ''})"
        for each in worst
    )
    said = f"Weight errors lie between {min(weights):.4f} and {max(weights):.4f}"
    if outputs:
        said += f", output errors between {min(outputs):.4f} and {max(outputs):.4f}"
    said += f"; the largest weight errors: {reasons}."
    if errors.precision not in ("16 or 32 bits", "F16", "BF16", "F32"):
        said += f" The reference lay on a {errors.precision} grid before."
    return said


def draw_quality(variants: Sequence[Variant]) -> Drawing:
    """Draw mean KL divergence against extra bytes, with 95 % intervals over blocks of text."""
    figure = style(go.Figure(), "What the extra bytes buy: divergence from the reference", 520)
    for chosen, name, color, symbol in (
        (True, "chosen by the selector", VERMILLION, "diamond"),
        (False, "everything else", BLUE, "circle"),
    ):
        rows = [variant for variant in variants if variant[3] == chosen]
        middles = [quality.kl_mean for _, _, quality, _ in rows]
        figure.add_scatter(
            x=[extra for _, extra, _, _ in rows],
            y=middles,
            text=[label for label, *_ in rows],
            name=name,
            mode="markers",
            marker={"size": 11, "color": color, "symbol": symbol},
            error_y=error_bars(middles, [q.kl_mean_interval for _, _, q, _ in rows], color=color),
            hovertemplate="%{text}: %{y:.4f} at %{x:.1f} %<extra></extra>",
        )
    widest = max(extra for _, extra, _, _ in variants) * 1.25 + 1
    lowest = min(quality.kl_mean_interval[0] for _, _, quality, _ in variants) * 0.8
    highest = max(quality.kl_mean_interval[1] for _, _, quality, _ in variants) * 1.1
    figure.update_xaxes(
        title="extra bytes over nf4 with double quantisation, percent", range=[-1, widest]
    )
    figure.update_yaxes(title="mean KL divergence, nats a token", range=[lowest, highest])
    names = {(extra, quality.kl_mean): label for label, extra, quality, _ in variants}
    label_points(figure, names, (-1, widest), (lowest, highest), (WIDTH - 100, 370))
    best = min(variants, key=lambda variant: variant[2].kl_mean)
    summary = (
        f"The least divergence has {best[0]}: {best[2].kl_mean:.4f} nats a token for "
        f"{best[1]:.1f} % more bytes."
    )
    table = pd.DataFrame(
        [
            (name, extra, q.kl_mean, *q.kl_mean_interval, q.kl_p99, q.top1_agreement, q.perplexity)
            for name, extra, q, _ in variants
        ],
        columns=[
            "choice", "extra bytes, %", "KL", "KL, low", "KL, high", "KL, 99th percentile",
            "same top token", "perplexity",
        ],
    )  # fmt: skip
    return Drawing(figure, summary, table)


def draw_proxies(
    names: Sequence[str], proxies: Sequence[Sequence[float]], harm: Sequence[float]
) -> Drawing:
    """Draw each proxy against the divergence of quantising a module alone, a module a point."""
    from scipy.stats import spearmanr

    ranks = [float(spearmanr(values, harm).statistic) for values in proxies]
    titles = [f"rank correlation {rank:.2f}" for rank in ranks]
    figure = make_subplots(1, len(names), shared_yaxes=True, subplot_titles=titles)
    for column, (name, values) in enumerate(zip(names, proxies, strict=True), start=1):
        figure.add_scatter(
            x=list(values),
            y=list(harm),
            mode="markers",
            name=name,
            showlegend=False,
            marker={"size": 6, "color": BLUE, "line": {"color": INK, "width": 0.4}},
            row=1,
            col=column,
        )
        wide = min(values) > 0 and max(values) > 3 * min(values)
        kind = LOG_AXIS if wide else {"nticks": 5}
        figure.update_xaxes(title=name, row=1, col=column, **kind)
    style(figure, "Which number foretells the harm of quantising a module alone", 420)
    figure.update_layout(margin={"t": 85, "b": 60})
    figure.update_yaxes(type="log", dtick=1, exponentformat="e")
    figure.update_yaxes(title="KL divergence, nats a token", row=1, col=1)
    table = pd.DataFrame({"proxy": list(names), "rank correlation (Spearman)": ranks})
    best = max(range(len(names)), key=lambda place: ranks[place])
    summary = (
        f"Of {', '.join(names)}, {names[best]} ranks the modules most like the measured harm "
        f"({ranks[best]:.2f}, over {len(harm)} modules)."
    )
    return Drawing(figure, summary, table)
