"""One pass of a text through a model, each linear module measured where its inputs pass by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from .codecs import SLICE, Codec
from .linears import HEAD, Linear
from .module_error import Inputs, ModuleError, measure
from .weights import FolderWeights, Weights


def run_through(
    model: Any,
    weights: Weights,
    codec: Codec,
    tokens: torch.Tensor,
    keep: Callable[[ModuleError], None],
    known: Mapping[str, ModuleError] = {},
) -> None:
    """Run blocks of tokens through a model once, and measure each linear module on the way.

    The weights come from `weights`, so the model's own may be missing. keep is called with each
    error as it is found; modules in `known` are run but not measured.
    """
    modules = {linear.name: model.get_submodule(linear.name) for linear in weights.linears}
    last: list[Inputs] = []

    def forward(linear: Linear, x: torch.Tensor) -> torch.Tensor:
        weight = weights.read(linear)
        # Nobody reads the logits, which for many tokens are larger than the model.
        outputs = x if linear.name == HEAD else multiply(x, weight)
        if linear.name not in known:
            rows = x.reshape(-1, linear.n_in)
            if not last or last[0].x.data_ptr() != rows.data_ptr() or last[0].x.shape != rows.shape:
                last[:] = [Inputs(rows)]
            made = None if linear.name == HEAD else outputs
            keep(measure(linear, weight, codec, last[0], made))
        bias = modules[linear.name].bias
        return outputs if bias is None else outputs + bias

    for linear in weights.linears:
        modules[linear.name].forward = partial(forward, linear)
    try:
        with torch.inference_mode():
            model(tokens, use_cache=False)
    finally:
        for module in modules.values():
            del module.forward


def multiply(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x W^T in float32, a slice of W at a time where W is in 16 bits."""
    if weight.dtype == torch.float32:
        return x @ weight.T
    outputs = x.new_empty(*x.shape[:-1], len(weight))
    n_rows = max(1, SLICE // weight.shape[1])
    for start in range(0, len(weight), n_rows):
        outputs[..., start : start + n_rows] = x @ weight[start : start + n_rows].float().T
    return outputs


def stream(weights: FolderWeights) -> Any:
    """The model of a folder with all but its linear modules in place, in float32.

    The embedding stays on the disk: only the rows of tokens that occur are read.
    """
    model = weights.model
    linears = {f"{linear.name}.weight" for linear in weights.linears}
    embedding = model.get_input_embeddings()
    for name, parameter in list(model.named_parameters()):
        if name in linears or parameter is embedding.weight:
            continue
        module, _, attribute = name.rpartition(".")
        value = torch.nn.Parameter(weights.tensor(name).float(), requires_grad=False)
        setattr(model.get_submodule(module), attribute, value)
    names = {id(module): name for name, module in model.named_modules()}
    table = weights.tensor(f"{names[id(embedding)]}.weight")
    embedding.forward = lambda ids: table[ids].float()
    return model
