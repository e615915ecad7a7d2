"""The harm that one module does when it alone is quantised, measured for each: what a proxy such
as the error of its weights would have to predict."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from ..errors import SettingError
from .decoded import Decoded
from .evaluate import Reference, predict
from .journal import Journal
from .linears import Linear


def measure_alone(
    reference: Reference,
    decoded: Decoded,
    linears: Sequence[Linear] | None = None,
    on_module: Callable[[int, int, str, float], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
    key: str = "",
) -> dict[str, float]:
    """The mean KL divergence when one module alone is quantised, for each module by its name.

    Layers before the module give what they gave, so they are run once for all: half the work.
    on_module gets the number, how many there are, the name and the divergence. stop is asked
    between two modules; those that are known by then are given back.

    key: what stands for model, codec and text; where it is given, each divergence is kept in
    models_dir() and not measured again (`Checkpoint.identify` is the model's part).
    """
    linears = decoded.linears if linears is None else linears
    traces = [_Trace(reference.model, block) for block in reference.blocks]
    found: dict[str, float] = {}
    with Journal("alone", json.dumps([key, reference.blocks.tolist()]) if key else None) as journal:
        known = {str(row.get("name")): row.get("kl") for row in journal.rows}
        for linear in linears:
            kl = known.get(linear.name)
            if not isinstance(kl, float):
                kl = _measure(linear, reference, decoded, traces)
                journal.add({"name": linear.name, "kl": kl})
            found[linear.name] = kl
            if on_module:
                on_module(len(found), len(linears), linear.name, kl)
            if stop():
                break
    return found


def _measure(
    linear: Linear, reference: Reference, decoded: Decoded, traces: Sequence[_Trace]
) -> float:
    scored = []
    with decoded.swapped(only=[linear.name]):
        for place, trace in enumerate(traces):
            with trace.skipping(linear.layer or 0):
                scored.append(reference.score(place))
    return float(torch.cat(scored, 1)[1].mean())


class _Trace:
    """What each layer of a model gives for one block of tokens."""

    def __init__(self, model: Any, block: torch.Tensor) -> None:
        self._layers = find_layers(model)
        self._outputs: list[Any] = []
        hooks = [
            layer.register_forward_hook(lambda _m, _x, output: self._outputs.append(output))
            for layer in self._layers
        ]
        try:
            predict(model, block)
        finally:
            for hook in hooks:
                hook.remove()

    @contextmanager
    def skipping(self, n_layers: int) -> Iterator[None]:
        """The first layers give what they gave, and compute nothing."""
        skipped = list(zip(self._layers, self._outputs, strict=True))[:n_layers]
        for layer, output in skipped:
            layer.forward = partial(_give, output)
        try:
            yield
        finally:
            for layer, _ in skipped:
                del layer.forward


def _give(output: Any, *_: Any, **__: Any) -> Any:
    return output


def find_layers(model: Any) -> Any:
    """The decoder layers of a model; SettingError where they are not at `model.layers`."""
    layers = getattr(getattr(model, "model", None), "layers", None)
    if layers is None:
        raise SettingError(f"{type(model).__name__} has no model.layers; the lab knows no others")
    return layers
