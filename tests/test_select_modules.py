"""The selector: exact against brute force, within its budget, and the choices beside it."""

from __future__ import annotations

import itertools
import random

import pytest

from qwqlab.errors import SettingError
from qwqlab.quant import ModuleError, QuantErrors, baselines, select
from qwqlab.quant.selection import budget_bytes

SIZES = {"q_proj": (64, 64), "v_proj": (32, 64), "up_proj": (192, 64), "down_proj": (64, 192)}


def make_errors(n_layers: int, seed: int = 0, whole: bool = True) -> QuantErrors:
    draw = random.Random(seed)
    modules = []
    for layer in range(n_layers):
        for kind, (n_out, n_in) in SIZES.items():
            parent = "self_attn" if kind[0] in "qv" else "mlp"
            modules.append(
                ModuleError(
                    name=f"model.layers.{layer}.{parent}.{kind}", kind=kind, layer=layer,
                    n_out=n_out, n_in=n_in, type="nf4",
                    weight_rel_mse=draw.uniform(0.008, 0.012),
                    output_rel_mse=draw.lognormvariate(-5, 1), cosine=0.99,
                    kurtosis=draw.uniform(3, 9), outlier_ratio=5.0, input_outlier_ratio=9.0,
                    bytes_16bit=2 * n_out * n_in, n_bytes=n_out * n_in * 9 // 16,
                )
            )  # fmt: skip
    return QuantErrors("tiny", "nf4", "16 bits", 512, tuple(modules), whole, {}, 1.0, 1)


@pytest.mark.parametrize("metric", ["output_rel_mse", "weight_rel_mse", "kurtosis"])
@pytest.mark.parametrize("percent", [0, 3, 20, 55, 90, 300])
def test_no_choice_within_the_budget_does_better(metric: str, percent: float) -> None:
    errors = make_errors(3, seed=int(percent))
    budget = budget_bytes(errors, percent)
    best = min(
        sum(getattr(module, metric) for module in errors.modules if module not in kept)
        for n in range(len(errors.modules) + 1)
        for kept in itertools.combinations(errors.modules, n)
        if sum(module.extra_bytes for module in kept) <= budget
    )
    chosen = select(errors, percent, metric)
    assert chosen.objective == pytest.approx(best, abs=1e-9)
    assert chosen.bound <= chosen.objective + 1e-12
    assert chosen.bound == pytest.approx(best, abs=1e-6)
    assert chosen.extra_bytes <= budget and chosen.extra_percent <= percent


def test_bits_and_bytes_are_those_of_what_is_kept() -> None:
    errors = make_errors(4)
    chosen = select(errors, 30)
    kept = [module for module in errors.modules if module.name in chosen.keep]
    assert chosen.extra_bytes == sum(module.extra_bytes for module in kept) > 0
    n_bytes = sum(
        module.bytes_16bit if module in kept else module.n_bytes for module in errors.modules
    )
    weights = sum(module.n_out * module.n_in for module in errors.modules)
    assert chosen.bits_per_weight == pytest.approx(8 * n_bytes / weights)
    assert select(errors, 0).bits_per_weight == 4.5


def test_a_harm_of_ones_own_decides() -> None:
    errors = make_errors(2)
    harm = {module.name: float(module.kind == "q_proj") for module in errors.modules}
    chosen = select(errors, 50, "my own", harm)
    assert {name.rpartition(".")[2] for name in chosen.keep} == {"q_proj"}
    assert chosen.objective == 0 and chosen.metric == "my own"
    with pytest.raises(SettingError, match="no harm is given"):
        select(errors, 50, "my own", {})


@pytest.mark.parametrize("percent", [5, 25, 60])
def test_baselines_spend_the_budget_and_no_more(percent: float) -> None:
    errors = make_errors(8)
    by_name = {module.name: module for module in errors.modules}
    budget = budget_bytes(errors, percent)
    smallest = min(module.extra_bytes for module in errors.modules)
    choices = baselines(errors, percent)
    assert len(choices) == 7
    for name, keep in choices.items():
        spent = sum(by_name[each].extra_bytes for each in keep)
        assert spent <= budget, name
        # Unsloth's pattern holds no attention besides that of layer 0.
        room = max(m.extra_bytes for m in errors.modules) if "pattern" in name else smallest
        assert budget - spent < room, name
    assert choices["random 0"] != choices["random 1"]
    assert choices["first"][0] == errors.modules[0].name
    assert percent < 25 or choices["last"][0] == errors.modules[-1].name
    worst = max(errors.modules, key=lambda module: module.weight_rel_mse)
    assert percent < 25 or worst.name in choices["largest weight error"]
    assert not any(".self_attn." in n and ".0." not in n for n in choices["Unsloth's pattern"])


def test_what_makes_no_budget_is_refused() -> None:
    for percent in (-1, float("nan"), float("inf")):
        with pytest.raises(SettingError, match="no budget"):
            select(make_errors(1), percent)
    with pytest.raises(SettingError, match="stopped"):
        select(make_errors(1, whole=False), 10)
    with pytest.raises(SettingError, match="not one of"):
        select(make_errors(1), 10, "beauty")
