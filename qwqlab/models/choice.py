"""Which model the notebooks use: the best one that is on this machine and fits its memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import FetchError
from .catalog import EMBEDDED, Entry, place_layers
from .local import list_local, model_path

VARIABLE = "QWQLAB_MODEL"
"""The variable that names a model, or the file of one, to be used instead."""

FAMILIES = ("QwQ-32B", "Qwen2.5-Coder")
"""Models by the beginnings of their names, the best first; the embedded one comes last."""


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
