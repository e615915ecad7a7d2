"""One run by several processes, each on its own card, as `accelerate launch` starts them.

A process that is alone is rank 0 of 1, and then nothing here does anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import SettingError


def is_main() -> bool:
    """Whether this process is the one that writes files and speaks."""
    return int(os.environ.get("RANK", "0")) == 0


def count_ranks() -> int:
    """How many processes run together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def share_accumulation(accumulation: int) -> int:
    """Batches that each process runs in a step, so that a step is what it is in one process."""
    n_ranks = count_ranks()
    if accumulation % n_ranks:
        raise SettingError(
            f"accumulation={accumulation} can't be shared by {n_ranks} processes; take a number of "
            "processes that divides it"
        )
    return accumulation // n_ranks


@contextmanager
def main_first() -> Iterator[None]:
    """The main process goes through the block before the others."""
    if count_ranks() == 1:
        yield
        return
    with _state().main_process_first():
        yield


def add_up(values: list[int]) -> list[int]:
    """The sums over all processes."""
    if count_ranks() == 1:
        return values
    import torch
    from accelerate.utils import reduce

    device = _state().device
    return [int(value) for value in reduce(torch.tensor(values, device=device), "sum").tolist()]


def _state() -> Any:
    import accelerate
    import torch

    return accelerate.PartialState(cpu=not torch.cuda.is_available())
