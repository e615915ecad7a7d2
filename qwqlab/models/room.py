"""Memory: what a run of a model takes, what is free, what fits where, and which model is used."""

from __future__ import annotations

import bisect
import itertools
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import FetchError, ModelFileError, SettingError
from ..files import make_folder, show_size
from .catalog import EMBEDDED, Entry
from .gguf import GGUFInfo, list_parts
from .local import list_local, model_path
from .quants import copy_path, estimate_copy

VARIABLE = "QWQLAB_MODEL"
"""The variable that names a model, or the file of one, to be used instead."""

FAMILIES = ("QwQ-32B", "Qwen2.5-Coder")
"""Models by the beginnings of their names, the best first; the embedded one comes last."""

N_UBATCH = 512
"""Tokens of a physical batch, llama.cpp's default."""

MARGIN = 1 << 30
"""Bytes of a graphics card that llama.cpp leaves free, by default (--fit-target)."""


@dataclass(frozen=True)
class Memory:
    """Bytes that a run takes: weights, KV cache in f16 and llama.cpp's compute buffer."""

    weights: int
    kv_cache: int
    overhead: int

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.overhead


@dataclass(frozen=True)
class Placement:
    """Where the memory of a run can lie: bytes on a graphics card, and in the computer's memory.

    n_gpu_layers: layers on the card as llama.cpp counts them, the head as one more; 0 for none.
    """

    n_gpu_layers: int
    card: int
    ram: int


def estimate_memory(entry: Entry, n_ctx: int | None = None) -> Memory:
    """Return the bytes that a run of `entry` takes, with a context of `n_ctx` tokens.

    Without n_ctx that is the longest context that the model was trained for. The overhead is
    llama.cpp's compute buffer, the logits and the residual stream of one physical batch of
    N_UBATCH tokens in f32: for SmolLM2 it gives the 98.25 MiB that llama.cpp reports. It leaves out
    the few hundred MB that a CUDA context takes by itself.

    >>> from qwqlab.models import lookup
    >>> round(estimate_memory(lookup("QwQ-32B:Q4_K_M"), 16_384).total / 1e9, 1)
    24.5
    """
    arch = entry.architecture
    n_ctx = arch.n_ctx_train if n_ctx is None else n_ctx
    if n_ctx < 1:
        raise SettingError(f"n_ctx is {n_ctx}, but a context holds at least 1 token.")
    return Memory(
        weights=entry.n_bytes,
        kv_cache=n_ctx * arch.kv_bytes_per_token,
        overhead=N_UBATCH * (arch.n_vocab + 2 * arch.n_embd) * 4,
    )


def estimate_run(info: GGUFInfo, n_ctx: int, n_bytes: int | None = None) -> Memory:
    """Do `estimate_memory` for a file, by its header, with a KV cache in f16.

    n_bytes: of a copy in another quant that runs instead. A cache that the header does not give
    plainly is left out.
    """
    weights = n_bytes or sum(part.stat().st_size for part in list_parts(info))
    overhead = N_UBATCH * ((info.n_rows or 0) + 2 * (info.n_embd or 0)) * 4
    return Memory(weights, 2 * n_ctx * (info.kv_numbers or 0), overhead)


@dataclass(frozen=True)
class Room:
    """Bytes of memory that are free now: of the graphics cards, and of the computer."""

    card: int
    ram: int


def measure_room() -> Room:
    """Return the memory that a model could take now; raise ToolchainError without llama.cpp.

    On a Mac the GPU's memory is the computer's own, and is counted once.
    """
    import psutil

    from ..llamacpp import list_devices

    card = 0 if sys.platform == "darwin" else sum(device.free for device in list_devices())
    return Room(card, psutil.virtual_memory().available)


def check_room(info: GGUFInfo, n_ctx: int, device: str = "", quant: str = "") -> None:
    """Raise ModelFileError if memory has no room for a model with a KV cache of n_ctx tokens.

    device: as of `Loading`; "none" leaves the graphics cards out. quant: what is to run is a copy
    in that quant, of one type; the disk must have room for it too, unless it is made already.
    """
    n_bytes = estimate_copy(info, quant) if quant else None
    need, room = estimate_run(info, n_ctx, n_bytes).total, measure_room()
    free = room.ram + (0 if device == "none" else room.card)
    what = f"a {quant} copy of {info.path.name}" if quant else info.path.name
    if need > free:
        remedy = "run the file as it is" if quant else "take a smaller model or fewer tokens"
        raise ModelFileError(
            f"{what} takes {show_size(need)} of memory with {n_ctx:,} tokens, and "
            f"{show_size(free)} are free; {remedy}"
        )
    if n_bytes and not (target := copy_path(info, quant)).is_file():
        free = shutil.disk_usage(make_folder(target.parent)).free
        if n_bytes > free:
            raise ModelFileError(
                f"{what} takes {show_size(n_bytes)}, and the disk of {target.parent} has "
                f"{show_size(free)} free; make room, or set QWQLAB_HOME elsewhere"
            )


def place_layers(entry: Entry, n_ctx: int | None = None, card: int = 0) -> Placement:
    """Return how many layers of a GGUF fit on a graphics card with `card` bytes free.

    Each layer is taken as an equal share of the weights and of the KV cache, and llama.cpp's margin
    stays free. `Engine` counts so too; llama.cpp's own programs look at the file's tensors
    (`--fit`). n_ctx is as in `estimate_memory`, whose sum the two places share.

    >>> from qwqlab.models import lookup
    >>> [place_layers(lookup("QwQ-32B:Q4_K_M"), 16_384, n << 30).n_gpu_layers for n in (24, 16, 8)]
    [65, 42, 19]
    """
    return place(estimate_memory(entry, n_ctx), entry.architecture.n_layers, card)


def place(need: Memory, n_layers: int, card: int) -> Placement:
    """Return how many of n_layers, and the head, fit on a card: `place_layers` for any model."""
    n_layers += 1
    layer = -(-(need.weights + need.kv_cache) // n_layers)
    n_there = min(max((card - MARGIN - need.overhead) // layer, 0), n_layers)
    on_card = min(n_there * layer + need.overhead, need.total) if n_there else 0
    return Placement(n_there, on_card, need.total - on_card)


@dataclass(frozen=True)
class Share:
    """What one of several machines holds of a model: layers, the head as one more, and bytes."""

    n_layers: int
    n_bytes: int


def share_layers(entry: Entry, n_ctx: int, free: Sequence[int]) -> tuple[Share, ...]:
    """Return what each machine holds when llama.cpp divides a GGUF among their ggml-rpc-servers.

    free: bytes of memory that are free on each, in the order of --rpc; llama.cpp gives each a part
    of the layers in proportion. The sizes are a sum for planning, as in `place_layers`: an equal
    part of weights and cache for each layer, and on each machine llama.cpp's compute buffer.

    >>> [share.n_layers for share in share_layers(EMBEDDED, 512, [4, 4])]
    [16, 15]
    """
    if not free or min(free) < 1:
        raise SettingError(f"free={list(free)}: give the free bytes of each machine.")
    need, n_layers = estimate_memory(entry, n_ctx), entry.architecture.n_layers + 1
    ends = [part / sum(free) for part in itertools.accumulate(free)]
    holders = [bisect.bisect_right(ends[:-1], layer / n_layers) for layer in range(n_layers)]
    counts = [holders.count(machine) for machine in range(len(free))]
    layer = (need.weights + need.kv_cache) / n_layers
    return tuple(Share(count, round(count * layer + need.overhead)) for count in counts)


def choose_model(n_ctx: int = 8192) -> str:
    """Return what `Engine` takes: the best model that is here and fits, with `n_ctx` tokens.

    That is QwQ-32B, or else a Qwen2.5-Coder, or else the embedded model. QWQLAB_MODEL names
    another one, or a file: raise FetchError if that is not here. No file is hashed or loaded.
    """
    if own := os.environ.get(VARIABLE):
        try:
            model_path(own)
        except FetchError as error:
            raise FetchError(f"{VARIABLE} is {own!r}, which can't be opened. {error}") from error
        return own
    here = [entry for entry in list_local() if entry.format == "gguf"]
    is_choice = any(entry.model.startswith(FAMILIES) for entry in here)
    return pick_model(here, measure_room(), n_ctx) if is_choice else EMBEDDED.name


def pick_model(here: Sequence[Entry], room: Room, n_ctx: int) -> str:
    """Return the name of the best of these models that fits.

    Of one family it is the largest file that fits the graphics card whole; if none does, the
    largest that fits card and computer together.
    """
    for family in FAMILIES:
        fitting = []
        for entry in here:
            if entry.model.startswith(family):
                place = place_layers(entry, min(n_ctx, entry.architecture.n_ctx_train), room.card)
                if place.ram <= room.ram:
                    fitting.append((place.ram == 0, entry.n_bytes, entry.name))
        if fitting:
            return max(fitting)[2]
    return EMBEDDED.name
