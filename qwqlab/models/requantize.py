"""Copies of a model in other quants, made with llama-quantize and kept in models_dir().

A copy is made once: it is kept while its source and the build of llama.cpp are what they were.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import files, hashes, paths, toolchain
from ..download import check_disk
from ..errors import FileError, ModelFileError, SettingError, ToolchainError
from . import gguf_file
from .gguf_file import GGUFInfo

# What `llama-quantize --help` lists, the smallest first; MXFP4_MOE is only for mixtures of experts.
QUANTS = ("Q1_0", "TQ1_0", "TQ2_0", "Q2_0", "Q2_K", "IQ3_XXS", "IQ3_XS", "IQ3_S", "Q3_K_S", "IQ3_M",
          "Q3_K_M", "Q3_K_L", "IQ4_XS", "IQ4_NL", "Q4_0", "Q4_K_S", "Q4_K_M", "Q4_1", "Q5_0",
          "Q5_K_S", "Q5_K_M", "Q5_1", "Q6_K", "Q8_0", "BF16", "F16", "F32")  # fmt: skip
# Refused without an importance matrix, which llama-imatrix computes from a text.
NEED_IMATRIX = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "Q2_K_S")
ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}
UNQUANTISED = {"F32", "F16", "BF16"}


def check_quant(quant: str) -> str:
    """The quant as llama-quantize names it; SettingError lists those that can be made.

    >>> check_quant("q4_k")
    'Q4_K_M'
    """
    name = ALIASES.get(quant.upper(), quant.upper())
    if name in NEED_IMATRIX:
        raise SettingError(
            f"{name} needs an importance matrix: make one with llama-imatrix, then run "
            "llama-quantize --imatrix yourself."
        )
    if name not in QUANTS:
        raise SettingError(f"{quant!r} is not a quant of llama.cpp; choose from {list(QUANTS)}")
    return name


def requantize(source: str | os.PathLike[str], quant: str) -> Path:
    """A copy of a model in another quant, in models_dir(): `X.Q4_1.gguf` becomes `X.Q4_0.gguf`.

    A copy that is there is kept while its source and the build of llama.cpp are what they were. A
    source that is of that quant is its own copy. What a coarse source has lost stays lost: a Q8_0
    copy of a Q4_1 file is larger and no better.

    Raises SettingError for an unknown quant, ModelFileError for a source that is no whole GGUF,
    FetchError when the disk has no room or another file has that name, FileError when it is full
    before the copy is whole, ToolchainError with llama-quantize's own words when it fails.
    """
    quant = check_quant(quant)
    source = Path(source).resolve()
    info = gguf_file.inspect(source)
    if info.n_parts > 1:
        raise ModelFileError(
            f"{source} is one of {info.n_parts} parts; join them with `llama-gguf-split --merge`."
        )
    if info.file_type == quant:
        return source
    target = paths.models_dir() / f"{name_copy(source.stem, info.file_type, quant)}.gguf"
    origin = {"source": hashes.sha256_of(source), "build": toolchain.describe_build()}
    before = None
    if target.is_file():
        before, made = hashes.sha256_of(target), _records().get(target.name, {})
        if before not in (made.get("sha256"), made.get("replaces")):
            raise ModelFileError(
                f"{target} is not a copy that the lab made; rename it or move it away."
            )
        if before == made.get("sha256") and origin.items() <= made.items():
            return target
    files.make_folder(target.parent)
    staged = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        fallbacks = _quantize(info, staged, quant, target)
        # Killed between the next two lines, the lab still knows the old file for its own.
        made = {**origin, "sha256": hashes.read_sha256(staged), "replaces": before}
        hashes.update_json(_file(), target.name, {**made, "fallbacks": fallbacks})
        staged.replace(target)
    finally:
        staged.unlink(missing_ok=True)
    return target


def sweep_copy(source: str | os.PathLike[str]) -> Path:
    """The copy that the lab takes for sweeps: Q8_0, for speed in batches at hardly any loss.

    A product of Q8_0 is a sum of whole numbers, so what a sequence draws does not depend on how
    many others share its batch (`Engine.width_independent`), and llama.cpp has kernels that read
    its blocks for many sequences at once; for Q4_1 it has none. Q4_0 is faster still, but coarse:
    a copy of the embedded model has 1.19 times its perplexity, one in Q8_0 less than 1.01 times
    (notebook 02 measures both).
    """
    return requantize(source, "Q8_0")


def name_copy(stem: str, old: str, new: str) -> str:
    """The name of a copy: the quant's own place in the source's name, or behind it.

    >>> name_copy("QwQ-32B-Q4_K_M", "Q4_K_M", "Q4_0"), name_copy("tiny", "F16", "Q8_0")
    ('QwQ-32B-Q4_0', 'tiny.Q8_0')
    """
    for mark in ".-":
        if stem.upper().endswith(mark + old):
            return stem[: -len(old)] + new
    return f"{stem}.{new}"


def read_record(path: Path) -> dict[str, Any] | None:
    """How the lab made a file: source, build, sha256, fallbacks; None if it did not, or not so.

    fallbacks counts tensors by what they wanted and got, such as {"q4_K -> q5_0": 150}.
    """
    record = _records().get(path.name)
    if record is None or path.resolve().parent != paths.models_dir():
        return None
    is_it = path.is_file() and hashes.sha256_of(path) == record.get("sha256")
    return record if is_it else None


def recorded_hashes(name: str) -> tuple[str, ...]:
    """The sha256 that the lab's copy of that name may have; empty if the lab made none."""
    made = _records().get(name, {})
    return tuple(str(made[key]) for key in ("sha256", "replaces") if made.get(key))


def _records() -> dict[str, dict[str, Any]]:
    kept = hashes.read_json(_file())
    return {name: record for name, record in kept.items() if isinstance(record, dict)}


def _file() -> Path:
    return paths.models_dir() / "quants.json"


def run_quantize(args: Sequence[str | os.PathLike[str]], target: Path) -> str:
    """Run llama-quantize to make `target`, and give what it logs; FileError on a full disk."""
    try:
        return toolchain.run_tool("llama-quantize", args).stderr
    except ToolchainError as error:
        if "iostream error" not in str(error):  # all that it says of a write that failed
            raise
        raise FileError(
            f"{target} cannot be written: its disk is full or fails; make room and run it again."
        ) from error


def _quantize(info: GGUFInfo, staged: Path, quant: str, target: Path) -> dict[str, int]:
    """Run llama-quantize; the fallbacks that it reports, counted."""
    requantizes = not set(info.bytes_by_type) <= UNQUANTISED
    flags = ["--allow-requantize"] if requantizes else []
    plan = toolchain.run_tool("llama-quantize", [*flags, "--dry-run", info.path, quant]).stderr
    if size := re.search(r"quant size\s*=\s*([\d.]+) MiB", plan):
        n_bytes = int(float(size[1]) * 2**20) + info.data_offset
        remedy = "set QWQLAB_HOME to a folder on a larger disk"
        check_disk(target.parent, n_bytes, target.name, remedy)
    log = run_quantize([*flags, info.path, staged, quant], target)
    fallbacks: dict[str, int] = {}
    for wanted, got in re.findall(r"required for type\s+(\S+)\) -> falling back to\s+(\S+)", log):
        key = f"{wanted} -> {got}"
        fallbacks[key] = fallbacks.get(key, 0) + 1
    return fallbacks
