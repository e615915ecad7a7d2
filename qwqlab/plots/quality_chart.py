"""What choices cost, as figures: divergence against bytes, and which proxy foretells it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .drawing import BLUE, INK, VERMILLION, WIDTH, Drawing, style
from .labels import Frame, annotate


class Quality(Protocol):
    """What a figure reads of a variant."""

    @property
    def perplexity(self) -> float: ...
    @property
    def kl_mean(self) -> float: ...
    @property
    def kl_mean_interval(self) -> tuple[float, float]: ...
    @property
    def kl_p99(self) -> float: ...
    @property
    def top1_agreement(self) -> float: ...


Variant = tuple[str, float, Quality, bool]
"""A name, its extra bytes in percent, what it cost, and whether the selector chose it."""


def draw_quality(variants: Sequence[Variant]) -> Drawing:
    """Mean KL divergence against extra bytes, with 95 % intervals over blocks of text."""
    height, margin = 520, 180
    figure = style(go.Figure(), "What the extra bytes buy: divergence from the reference", height)
    for chosen, name, color, symbol in (
        (True, "chosen by the selector", VERMILLION, "diamond"),
        (False, "everything else", BLUE, "circle"),
    ):
        rows = [variant for variant in variants if variant[3] == chosen]
        middles = [quality.kl_mean for _, _, quality, _ in rows]
        figure.add_trace(
            go.Scatter(
                x=[extra for _, extra, _, _ in rows],
                y=middles,
                text=[label for label, *_ in rows],
                name=name,
                mode="markers",
                marker={"size": 11, "color": color, "symbol": symbol},
                error_y={
                    "array": [q.kl_mean_interval[1] - q.kl_mean for _, _, q, _ in rows],
                    "arrayminus": [q.kl_mean - q.kl_mean_interval[0] for _, _, q, _ in rows],
                    "color": color,
                    "thickness": 1,
                },
                hovertemplate="%{text}: %{y:.4f} at %{x:.1f} %<extra></extra>",
            )
        )
    widest = max(extra for _, extra, _, _ in variants) * 1.25 + 1
    lowest = min(quality.kl_mean_interval[0] for _, _, quality, _ in variants) * 0.8
    highest = max(quality.kl_mean_interval[1] for _, _, quality, _ in variants) * 1.1
    figure.update_xaxes(
        title="extra bytes over nf4 with double quantisation, percent", range=[-1, widest]
    )
    figure.update_yaxes(title="mean KL divergence, nats a token", range=[lowest, highest])
    frame = Frame((-1, widest), (lowest, highest), (WIDTH - 100, height - margin))
    annotate(figure, {(x, quality.kl_mean): label for label, x, quality, _ in variants}, frame)
    best = min(variants, key=lambda variant: variant[2].kl_mean)
    summary = (
        f"The least divergence has {best[0]}: {best[2].kl_mean:.4f} nats a token for "
        f"{best[1]:.1f} % more bytes."
    )
    return Drawing(figure, summary, _tabulate(variants))


def draw_proxies(
    names: Sequence[str], proxies: Sequence[Sequence[float]], harm: Sequence[float]
) -> Drawing:
    """Each proxy against the divergence when the module alone is quantised, a module a point."""
    from scipy.stats import spearmanr

    ranks = [float(spearmanr(values, harm).statistic) for values in proxies]
    titles = [f"rank correlation {rank:.2f}" for rank in ranks]
    figure = make_subplots(1, len(names), shared_yaxes=True, subplot_titles=titles)
    for column, (name, values) in enumerate(zip(names, proxies, strict=True), start=1):
        figure.add_trace(
            go.Scatter(
                x=list(values), y=list(harm), mode="markers", name=name, showlegend=False,
                marker={"size": 6, "color": BLUE, "line": {"color": INK, "width": 0.4}},
            ),
            row=1, col=column,
        )  # fmt: skip
        wide = min(values) > 0 and max(values) > 3 * min(values)
        kind = {"type": "log", "dtick": "D2"} if wide else {"nticks": 5}
        figure.update_xaxes(title=name, row=1, col=column, **kind)
    style(figure, "Which number foretells the harm of quantising a module alone", 420)
    figure.update_yaxes(type="log", dtick=1, exponentformat="e")
    figure.update_yaxes(title="KL divergence, nats a token", row=1, col=1)
    table = pd.DataFrame({"proxy": list(names), "rank correlation (Spearman)": ranks})
    best = max(range(len(names)), key=lambda place: ranks[place])
    summary = (
        f"Of {', '.join(names)}, {names[best]} ranks the modules most like the measured harm "
        f"({ranks[best]:.2f}, over {len(harm)} modules)."
    )
    return Drawing(figure, summary, table)


def _tabulate(variants: Sequence[Variant]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "choice": name,
                "extra bytes, %": extra,
                "KL": quality.kl_mean,
                "KL, low": quality.kl_mean_interval[0],
                "KL, high": quality.kl_mean_interval[1],
                "KL, 99th percentile": quality.kl_p99,
                "same top token": quality.top1_agreement,
                "perplexity": quality.perplexity,
            }
            for name, extra, quality, _ in variants
        ]
    )
