"""The figures of few bits hold what the numbers say."""

from __future__ import annotations

import pytest
from test_select_modules import make_errors

from qwqlab.plots import draw_errors, draw_heat, draw_proxies, draw_quality, draw_types
from qwqlab.quant import Quality, theory


def make_quality(kl: float) -> Quality:
    wide = (kl * 0.8, kl * 1.2)
    return Quality(40.0, (30, 50), kl, wide, 3 * kl, wide, 0.7, (0.6, 0.8), 510, (3.0,), (kl,))


def test_errors_are_drawn_by_layer_with_theory_and_outliers() -> None:
    errors = make_errors(6)
    drawing = draw_errors(errors)
    assert len(drawing.table) == 24
    traces = [trace for trace in drawing.figure.data if trace.name == "v_proj"]
    wanted = [module for module in errors.modules if module.kind == "v_proj"]
    assert list(traces[0].y) == [module.weight_rel_mse for module in wanted]
    assert list(traces[1].y) == [module.output_rel_mse for module in wanted]
    worst = max(errors.modules, key=lambda module: module.weight_rel_mse)
    assert worst.name in drawing.summary and f"kurtosis {worst.kurtosis:.1f}" in drawing.summary


def test_a_heat_map_has_a_cell_for_each_module() -> None:
    errors = make_errors(5)
    drawing = draw_heat(errors)
    (heat,) = drawing.figure.data
    assert len(heat.z) == 4 and {len(row) for row in heat.z} == {5}
    assert heat.z[0][2] == errors.modules[8].output_rel_mse
    means = {kind: sum(m.output_rel_mse or 0 for m in errors.modules if m.kind == kind)
             for kind in heat.y}  # fmt: skip
    assert drawing.summary.split("first: ")[1].startswith(max(means, key=lambda k: means[k]))


def test_types_stand_above_shannons_line() -> None:
    rows = [("nf4", 4.5, 0.0088, 0.0085), ("Q4_0", 4.5, 0.0079, 0.0074), ("Q8_0", 8.5, 4e-5, 3e-5)]
    drawing = draw_types(rows, [theory.shannon(bits) for _, bits, _, _ in rows])
    assert "Q4_0 loses least" in drawing.summary
    assert (drawing.table["error, weights"] > drawing.table["Shannon"]).all()


def test_choices_are_drawn_where_they_stand() -> None:
    variants = [
        ("naive", 0.0, make_quality(0.24), False),
        ("chosen", 9.0, make_quality(0.17), True),
        ("random <b>0</b>", 9.0, make_quality(0.22), False),
    ]
    drawing = draw_quality(variants)
    assert "chosen: 0.1700" in drawing.summary
    points = {
        (x, y) for trace in drawing.figure.data for x, y in zip(trace.x, trace.y, strict=True)
    }
    assert points == {(extra, quality.kl_mean) for _, extra, quality, _ in variants}
    assert "<b>" not in "".join(a.text for a in drawing.figure.layout.annotations)


def test_the_best_proxy_is_the_one_that_ranks_alike() -> None:
    harm = [0.1, 0.2, 0.4, 0.8, 1.6]
    drawing = draw_proxies(["a", "b"], [[5, 3, 4, 1, 2], [1, 2, 3, 5, 4]], harm)
    assert drawing.table["rank correlation (Spearman)"][1] == pytest.approx(0.9)
    assert "b ranks the modules" in drawing.summary
