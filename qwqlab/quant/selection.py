"""Which modules of a 4-bit model stay in 16 bits under a budget, and what else it could buy.

The rule: of all sets of modules whose extra bytes fit the budget, take the one that leaves the
least harm in 4 bits, where harm is a number for each module and adds up. That is a knapsack, which
HiGHS solves exactly (by scipy) and proves: `bound` is what no set could go below.

Unsloth publishes no rule for its own choice. Keeping what is worst first, as "largest weight
error" does here, is what its plots suggest.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import SettingError
from .module_errors import ModuleError, QuantErrors

METRICS = ("output_rel_mse", "weight_rel_mse", "kurtosis")


@dataclass(frozen=True)
class Selection:
    """Modules to keep in 16 bits.

    keep:            their names, in the model's order; the head, which is kept anyway, aside.
    extra_bytes:     what they cost over 4 bits; base_bytes is all modules but the head in 4 bits.
    bits_per_weight: of all modules but the head, on average.
    objective:       the harm that is left in 4 bits, and bound, below which no choice gets; both
                     sums of `metric` over modules.
    """

    metric: str
    keep: tuple[str, ...]
    extra_bytes: int
    base_bytes: int
    bits_per_weight: float
    objective: float
    bound: float

    @property
    def extra_percent(self) -> float:
        """Return the extra bytes in percent of base_bytes."""
        return 100 * self.extra_bytes / self.base_bytes

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {**asdict(self), "extra_percent": self.extra_percent}


def select(
    errors: QuantErrors,
    extra_percent: float,
    metric: str = "output_rel_mse",
    harm: Mapping[str, float] | None = None,
) -> Selection:
    """Return the modules to keep that leave the least harm, for up to so many percent more bytes.

    extra_percent: of the bytes that all modules but the head take in 4 bits.
    metric:        one of METRICS; or any name for a `harm` of your own, such as a KL divergence
                   measured when one module alone is quantised (`evaluation.measure_alone`).
    """
    budget = budget_bytes(errors, extra_percent)
    modules = errors.quantised
    harms = [_harm(module, metric, harm) for module in modules]
    places, bound = _solve(harms, [module.extra_bytes for module in modules], budget)
    base = sum(module.n_bytes for module in modules)
    extra = sum(modules[place].extra_bytes for place in places)
    left = sum(each for place, each in enumerate(harms) if place not in places)
    return Selection(
        metric=metric,
        keep=tuple(modules[place].name for place in sorted(places)),
        extra_bytes=extra,
        base_bytes=base,
        bits_per_weight=8 * (base + extra) / sum(each.n_out * each.n_in for each in modules),
        objective=left,
        bound=min(bound, left),
    )


def check_budget(extra_percent: float) -> None:
    """Raise SettingError for a budget that is none."""
    if not (math.isfinite(extra_percent) and extra_percent >= 0):
        raise SettingError(f"extra_percent={extra_percent} is no budget; give 0 or more")


def budget_bytes(errors: QuantErrors, extra_percent: float) -> int:
    """Return so many percent of the bytes that all modules but the head take in 4 bits.

    Raise SettingError for a budget that is none, or for the errors of a pass that was stopped.
    """
    check_budget(extra_percent)
    if not errors.whole:
        raise SettingError(f"{errors.model}: the pass was stopped; run it again to finish it.")
    return int(sum(module.n_bytes for module in errors.quantised) * extra_percent / 100)


def _harm(module: ModuleError, metric: str, harm: Mapping[str, float] | None) -> float:
    if harm is not None:
        if module.name not in harm:
            raise SettingError(f"{metric}: no harm is given for {module.name}")
        return harm[module.name]
    if metric not in METRICS:
        raise SettingError(f"metric={metric!r} is not one of {', '.join(METRICS)}")
    value = getattr(module, metric)
    if value is None:
        raise SettingError(f"{metric} was not measured; run quant_error with outputs=True")
    return float(value)


def _solve(harms: Sequence[float], costs: Sequence[int], budget: int) -> tuple[set[int], float]:
    """Return the places to keep, and a lower bound of the harm that is left."""
    import numpy as np
    from scipy.optimize import Bounds, LinearConstraint, milp

    total = sum(harms)
    if budget < min(costs) or total <= 0:
        return set(), total
    unit = math.gcd(*costs)  # whole numbers near one, where the solver's tolerance means nothing
    found = milp(
        -np.array([harm / total for harm in harms]),
        constraints=LinearConstraint([[cost // unit for cost in costs]], ub=budget // unit),
        integrality=np.ones(len(harms)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0.0},
    )
    chosen = {place for place, kept in enumerate(found.x) if kept > 0.5}
    return chosen, max(0.0, total * (1 + found.mip_dual_bound))


def baselines(
    errors: QuantErrors, extra_percent: float, draws: int = 3
) -> dict[str, tuple[str, ...]]:
    """Return other choices for the same bytes, by name: a selector must beat them.

    At random (seeds 0 to draws - 1), the first, the last, the largest weight error first, and the
    pattern of Unsloth's QwQ-32B: attention of layer 0, then whole MLPs, here spread evenly.
    """
    modules = list(errors.quantised)
    orders: dict[str, list[ModuleError]] = {}
    for seed in range(draws):
        orders[f"random {seed}"] = random.Random(seed).sample(modules, len(modules))
    orders["first"] = modules
    orders["last"] = modules[::-1]
    orders["largest weight error"] = sorted(modules, key=lambda each: -each.weight_rel_mse)
    orders["Unsloth's pattern"] = _unsloth_order(modules)
    budget = budget_bytes(errors, extra_percent)
    return {name: _fill(budget, order) for name, order in orders.items()}


def _fill(budget: int, order: Iterable[ModuleError]) -> tuple[str, ...]:
    """Return the modules in an order, each that still fits the budget."""
    kept = []
    for module in order:
        if module.extra_bytes <= budget:
            budget -= module.extra_bytes
            kept.append(module.name)
    return tuple(kept)


def _unsloth_order(modules: Sequence[ModuleError]) -> list[ModuleError]:
    """Return layer 0's attention, then MLPs, in the order that halves the gaps between layers."""
    layers = sorted({module.layer for module in modules if module.layer is not None})
    width = max(1, len(layers).bit_length())
    spread = sorted(range(len(layers)), key=lambda place: f"{place:0{width}b}"[::-1])
    first = [each for each in modules if each.layer == layers[0] and ".self_attn." in each.name]
    mlps = [
        module
        for place in spread
        for module in modules
        if module.layer == layers[place] and ".mlp." in module.name
    ]
    return [*first, *mlps]
