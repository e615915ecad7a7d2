"""A device of torch that is not the CPU, for a machine that has no other.

A tensor on it computes with one on the CPU that it holds, and says that it lies elsewhere: on
"meta", of all devices the one that every build of torch has. As on a card, an operation on tensors
of both devices is refused, a number alone aside, and so is `.numpy()`.
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

DEVICE = torch.device("meta")


class Elsewhere(torch.Tensor):
    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> Elsewhere:
        made: Elsewhere = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(),
            dtype=held.dtype, device=DEVICE, requires_grad=held.requires_grad,
        )  # fmt: skip
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return _run(func, args, kwargs or {})


class _Computing(TorchDispatchMode):  # type: ignore[no-untyped-call]
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
    here = [each for each in tensors if isinstance(each, Elsewhere)]
    moves = func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
    indexes = func in (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default)
    if here and not moves:
        others = tensors[:1] if indexes else tensors  # indices may lie on the CPU
        if any(not isinstance(each, Elsewhere) and each.dim() for each in others):
            raise RuntimeError(f"{func}: expected all tensors to be on the same device")
    device = kwargs.get("device")
    stays = bool(here) if device is None else torch.device(device) == DEVICE
    if func is torch.ops.aten.copy_.default:
        stays = isinstance(args[0], Elsewhere)
    if device is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    args, kwargs = tree_map(lambda e: e.held if isinstance(e, Elsewhere) else e, (args, kwargs))
    found = func(*args, **kwargs)
    if not stays:
        return found
    known = {id(each.held): each for each in here}  # what an operation in place gives back

    def wrap(each: Any) -> Any:
        if not isinstance(each, torch.Tensor):
            return each
        return known[id(each)] if id(each) in known else Elsewhere(each)

    return tree_map(wrap, found)


@contextmanager
def second_device() -> Iterator[torch.device]:
    """Yield a device; within the block tensors are made on it, moved to it, and computed with."""
    # A wrapper can't be made in inference mode, whose tensors count no versions.
    with patch.object(torch, "inference_mode", torch.no_grad), _Making(), _Computing():  # type: ignore[no-untyped-call]
        yield DEVICE
