"""A model with the weights of some modules decoded from few bits, without loading it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from .checkpoint import list_linears
from .codecs import Codec
from .linears import HEAD


class Decoded:
    """The weights of a model's linear modules as a codec gives them back, float32.

    All modules but the head are decoded once and kept: as much memory again as their weights.
    head: decode the head as well, as a skip list without it would; an embedding that shares its
    weights keeps them.
    """

    def __init__(self, model: Any, codec: Codec, head: bool = False) -> None:
        self.model = model
        self.codec = codec
        self.linears = tuple(each for each in list_linears(model) if head or each.name != HEAD)
        self._weights: dict[str, torch.Tensor] = {}
        self.n_bytes: dict[str, int] = {}
        for linear in self.linears:
            encoded = codec.encode(model.get_submodule(linear.name).weight.detach())
            self._weights[linear.name] = encoded.rows(0, linear.n_out)
            self.n_bytes[linear.name] = encoded.n_bytes

    @contextmanager
    def swapped(self, keep: Sequence[str] = (), only: Sequence[str] | None = None) -> Iterator[Any]:
        """The model with its weights decoded from few bits, but those of `keep`; or of `only`."""
        chosen = [each.name for each in self.linears] if only is None else list(only)
        with swap_weights(self.model, {n: self._weights[n] for n in chosen if n not in keep}):
            yield self.model


@contextmanager
def swap_weights(model: Any, weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """The model with other weights in some modules, and its own again afterwards."""
    own = {name: model.get_submodule(name).weight for name in weights}
    try:
        for name, weight in weights.items():
            # A new parameter, not new data: an embedding may share the old one.
            module = model.get_submodule(name)
            module.weight = torch.nn.Parameter(weight, requires_grad=False)
        yield
    finally:
        for name, weight in own.items():
            model.get_submodule(name).weight = weight
