"""Storing a model in 4 bits, module by module: what is lost of its weights and of its outputs.

One pass over a calibration text measures the outputs of every module: the text runs through the
model in 16 or 32 bits, and each linear module is compared where its inputs pass by. A model that
memory doesn't hold is read from its folder one module at a time.
"""

from __future__ import annotations

import contextlib
import json
import re
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import paths
from . import theory
from .checkpoint import Checkpoint, check_room, free_memory
from .codecs import find_codec
from .journal import Journal
from .linears import HEAD
from .module_error import ModuleError, measure
from .one_pass import run_through, stream
from .text_blocks import read_blocks
from .weights import FolderWeights, LoadedWeights, Weights, open_weights

N_TOKENS = 2048

OnModule = Callable[[int, int, ModuleError], None]
"""Called after each module with its number, how many there are, and its error."""


class Stopped(Exception):
    """Raised within a pass when its `stop` says so."""


@dataclass(frozen=True)
class QuantErrors:
    """The errors of all modules of a model in one codec, in the model's order.

    whole is False where the pass was stopped: run it again, and it goes on. n_tokens of the text
    calibrated the outputs, 0 where only weights were measured. precision is what the weights lay
    on before (see `Checkpoint.precision`). peak_rss_bytes is the process's, from its start.
    """

    model: str
    codec: str
    precision: str
    n_tokens: int
    modules: tuple[ModuleError, ...]
    whole: bool
    theory: dict[str, float]
    seconds: float
    peak_rss_bytes: int

    @property
    def quantised(self) -> tuple[ModuleError, ...]:
        """The modules that transformers quantises if told nothing: all but the head."""
        return tuple(module for module in self.modules if module.name != HEAD)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return {**vars(self), "modules": [module.to_dict() for module in self.modules]}


def quant_error(
    model: str | Path | Checkpoint,
    codec: str = "nf4",
    text: str | Path | None = None,
    outputs: bool = True,
    n_tokens: int = N_TOKENS,
    on_module: OnModule | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> QuantErrors:
    """Measure every linear module of a model in a codec; see `ModuleError` for what is measured.

    text:     a file to calibrate with, by default the lab's own, data/texts/calibration.txt; its
              first n_tokens are read in contexts of 512.
    outputs:  False measures weights alone and needs no text.
    stop:     asked between two modules.

    Each module's error is kept in models_dir() as soon as it is known, so that a pass which was
    stopped or killed goes on where it was, and one that was whole is not run again. SettingError,
    FetchError and ModelFileError for what can't be used or doesn't fit into memory.
    """
    checkpoint = model if isinstance(model, Checkpoint) else Checkpoint(model)
    chosen = find_codec(codec)
    started = time.perf_counter()
    path = Path(text or paths.data_dir() / "texts" / "calibration.txt")
    tokens = read_blocks(checkpoint, path, n_tokens) if outputs else None
    key = [checkpoint.identify(), chosen.name, None if tokens is None else tokens.tolist()]
    with Journal("quant-errors", json.dumps(key)) as journal:
        known = {error.name: error for error in map(_read, journal.rows) if error}
        linears = open_weights(checkpoint).linears

        def keep(error: ModuleError) -> None:
            journal.add(error.to_dict())
            known[error.name] = error
            if on_module:
                on_module(len(known), len(linears), error)
            if stop():
                raise Stopped

        with contextlib.suppress(Stopped):
            if tokens is None:
                weights = open_weights(checkpoint)
                for linear in linears:
                    if linear.name not in known:
                        keep(measure(linear, weights.read(linear), chosen))
            elif any(linear.name not in known for linear in linears):
                run_through(*_load(checkpoint), chosen, tokens, keep, known)
    return QuantErrors(
        model=checkpoint.title,
        codec=chosen.name,
        precision=checkpoint.precision,
        n_tokens=0 if tokens is None else tokens.numel(),
        modules=tuple(known[each.name] for each in linears if each.name in known),
        whole=len(known) == len(linears),
        theory=theory.bounds(chosen.name),
        seconds=time.perf_counter() - started,
        peak_rss_bytes=peak_memory(),
    )


def _load(checkpoint: Checkpoint) -> tuple[Any, Weights]:
    """The model to run and its weights: in memory where it holds them twice over, or streamed."""
    if 2 * checkpoint.n_bytes < free_memory():
        model = checkpoint.load()
        return model, LoadedWeights(model)
    if not checkpoint.is_folder:
        check_room(2 * checkpoint.n_bytes, f"Unpacking {checkpoint.title}")
    weights = FolderWeights(checkpoint)
    return stream(weights), weights


def _read(row: dict[str, Any]) -> ModuleError | None:
    """A row of a journal; None for one that another version wrote."""
    try:
        return ModuleError.from_dict(row)
    except (TypeError, KeyError):
        return None


def peak_memory() -> int:
    """The most memory that this process has held, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would count a parent that was larger
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="ascii"))
        if found:
            return int(found[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
