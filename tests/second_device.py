"""A device of torch that is not the CPU, for a machine that has no other.

A tensor on it computes with one on the CPU that it holds, and says that it lies on a card. As there,
an operation on tensors of both devices is refused, a number alone aside, and so is `.numpy()`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CARD = torch.device("meta")


class OnCard(torch.Tensor):
    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> OnCard:
        made: Any = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(),
            dtype=held.dtype, device=CARD, requires_grad=held.requires_grad,
        )  # fmt: skip
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Card(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Making(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(kwargs or {})
        if func is not torch.tensor:  # which dispatches nothing
            return func(*args, **given)
        device = given.pop("device", None) or "cpu"
        return func(*args, **given).to(device)


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    here = [each for each in tensors if isinstance(each, OnCard)]
    moves = func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
    indexes = func in (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default)
    if here and not moves:
        others = tensors[:1] if indexes else tensors  # indices may lie on the CPU
        if any(not isinstance(each, OnCard) and each.dim() for each in others):
            raise RuntimeError(f"{func}: expected all tensors to be on the same device")
    device = kwargs.get("device")
    to_card = bool(here) if device is None else torch.device(device) == CARD
    if func is torch.ops.aten.copy_.default:
        to_card = isinstance(args[0], OnCard)
    if device is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    args, kwargs = tree_map(lambda e: e.held if isinstance(e, OnCard) else e, (args, kwargs))
    found = func(*args, **kwargs)
    if not to_card:
        return found
    known = {id(each.held): each for each in here}  # what an operation in place gives back

    def wrap(each: Any) -> Any:
        if not isinstance(each, torch.Tensor):
            return each
        return known[id(each)] if id(each) in known else OnCard(each)

    return tree_map(wrap, found)


@contextmanager
def second_device() -> Iterator[torch.device]:
    """Yield a device; within the block tensors can be made on it, moved to it, and computed with."""
    # A wrapper can't be made in inference mode, whose tensors count no versions.
    with patch.object(torch, "inference_mode", torch.no_grad), _Making(), _Card():
        yield CARD
