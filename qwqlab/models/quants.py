"""Other quants of a model: make a copy in each, and measure a ladder of them.

llama.cpp's own tools do the work: llama-quantize makes a copy, llama-bench times it and
llama-perplexity reads a text with it. Copies and perplexities are kept while the source and the
build of llama.cpp stay as they were, so a climb that was stopped goes on from there. Speed is
measured each time.
"""

from __future__ import annotations

import json
import math
import os
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import files, paths
from ..errors import FileError, ModelFileError, SettingError, ToolchainError
from ..llamacpp import bits_of, count_threads, describe_build, find_build, run_tool
from . import trial
from .catalog import EMBEDDED
from .gguf import GGUFInfo, inspect

# What `llama-quantize --help` lists and makes without an importance matrix, the smallest first;
# MXFP4_MOE is only for mixtures of experts.
QUANTS = ("Q1_0", "TQ1_0", "TQ2_0", "Q2_0", "Q2_K", "IQ3_XXS", "IQ3_XS", "IQ3_S", "Q3_K_S", "IQ3_M",
          "Q3_K_M", "Q3_K_L", "IQ4_XS", "IQ4_NL", "Q4_0", "Q4_K_S", "Q4_K_M", "Q4_1", "Q5_0",
          "Q5_K_S", "Q5_K_M", "Q5_1", "Q6_K", "Q8_0", "BF16", "F16", "F32")  # fmt: skip
ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}

LADDER = ("Q2_K", "Q3_K_M", "Q4_0", "Q4_1", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "BF16")
N_CTX, N_CHUNKS = 512, 6


def check_quant(quant: str) -> str:
    """Return a quant's name as llama-quantize writes it. Raise SettingError for an unknown one.

    >>> check_quant("q4_k")
    'Q4_K_M'
    """
    name = ALIASES.get(quant.upper(), quant.upper())
    if name not in QUANTS:
        raise SettingError(
            f"{quant!r} is not a quant that llama.cpp makes without an importance matrix; choose "
            f"from {list(QUANTS)}"
        )
    return name


def requantize(source: str | os.PathLike[str], quant: str) -> Path:
    """Return a copy of a model in another quant, in models_dir(), and make it if need be.

    The copy of `X.Q4_1.gguf` is `X.Q4_0.gguf`. It is made anew when its source or the build of
    llama.cpp has changed. A source that has that quant already is returned itself. What a coarse
    source has lost stays lost: a Q8_0 copy of a Q4_1 file is larger and no better.

    Raise SettingError for an unknown quant, ModelFileError for a source that is not a whole GGUF
    and where a file of another origin has the copy's name, FileError if the disk is full,
    ToolchainError with llama-quantize's own message.
    """
    quant = check_quant(quant)
    source = Path(source).resolve()
    info = inspect(source)
    if info.n_parts > 1:
        raise ModelFileError(
            f"{source} is one of {info.n_parts} parts; join them with `llama-gguf-split --merge`."
        )
    if info.file_type == quant:
        return source
    target = copy_path(info, quant)
    origin = {"source": files.sha256_of(source), "build": describe_build()}
    if target.is_file():
        made = read_record(target)
        if made is None:
            raise ModelFileError(
                f"{target} is not a copy that the lab made; rename it or move it away."
            )
        if origin.items() <= made.items():
            return target
    files.make_folder(target.parent)
    staged = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        # A source may be quantised already.
        log = run_quantize(["--allow-requantize", info.path, staged, quant], target)
        found = re.findall(r"required for type\s+(\S+)\) -> falling back to\s+(\S+)", log)
        fallbacks = Counter(f"{wanted} -> {got}" for wanted, got in found)
        made = {**origin, "sha256": files.read_sha256(staged), "fallbacks": fallbacks}
        files.update_json(_record_file(), target.name, made)
        staged.replace(target)
    finally:
        staged.unlink(missing_ok=True)
    return target


def sweep_copy(source: str | os.PathLike[str]) -> Path:
    """Return the copy on which the lab runs sweeps: Q8_0, fast in batches at hardly any loss.

    A product of Q8_0 is a sum of whole numbers, so what a sequence draws does not depend on how
    many others share its batch (`Engine.width_independent`), and llama.cpp has kernels that read
    its blocks for many sequences at once; for Q4_1 it has none. Q4_0 is faster still, but coarse:
    a copy of the embedded model has 1.19 times its perplexity, one in Q8_0 less than 1.01 times
    (notebook 02 measures both).
    """
    return requantize(source, "Q8_0")


def estimate_copy(info: GGUFInfo, quant: str) -> int:
    """Return about how many bytes a copy takes in a quant of one type, such as Q8_0 or BF16."""
    header = info.n_bytes - sum(info.bytes_by_type.values())
    return header + round(info.n_parameters * bits_of(quant.lower()) / 8)


def copy_path(info: GGUFInfo, quant: str) -> Path:
    """Return where a copy lies once it is made: the new quant stands in the old one's place.

    The copy of `tiny.gguf`, whose name has no quant, is `tiny.Q8_0.gguf`.
    """
    stem = info.path.stem
    for mark in ".-":
        if stem.upper().endswith(mark + info.file_type):
            return paths.models_dir() / f"{stem[: -len(info.file_type)]}{quant}.gguf"
    return paths.models_dir() / f"{stem}.{quant}.gguf"


def is_embedded(path: Path) -> bool:
    """Return whether a file is the embedded model, or the lab's own copy of it."""
    if made := read_record(path):
        return bool(made["source"] == EMBEDDED.sha256)
    return path.stat().st_size == EMBEDDED.n_bytes and files.sha256_of(path) == EMBEDDED.sha256


def read_record(path: Path) -> dict[str, Any] | None:
    """Return how the lab made a file: source, build, sha256 and fallbacks.

    fallbacks counts tensors by the type they should have and the one they got, such as
    {"q4_K -> q5_0": 150}. None if the lab did not make the file, or it has changed since.
    """
    record = files.read_json(_record_file()).get(path.name)
    if record is None or path.resolve().parent != paths.models_dir():
        return None
    is_it = path.is_file() and files.sha256_of(path) == record.get("sha256")
    return dict(record) if is_it else None


def _record_file() -> Path:
    return paths.models_dir() / "quants.json"


def run_quantize(args: Sequence[str | os.PathLike[str]], target: Path) -> str:
    """Run llama-quantize to make `target`; return its log. Raise FileError if the disk is full."""
    try:
        return run_tool("llama-quantize", args).stderr
    except ToolchainError as error:
        if "iostream error" not in str(error):  # its only words for a failed write
            raise
        raise FileError(
            f"{target} cannot be written: its disk is full or fails; make room and run it again."
        ) from error


@dataclass(frozen=True)
class RungResult:
    """One quant of a ladder, measured.

    bytes:             size of the file.
    bits_per_weight:   of the tensors that are in the file, whatever its name promises.
    fallback_tensors:  tensors that got another type than the quant wants, because their rows do
                       not divide into its blocks; None when the lab did not make the file.
    perplexity:        exp of the mean surprise of a token, with its standard error over tokens.
    chunk_surprises:   mean surprise of a token in each chunk, in nats (see `compare_rungs`).
    tokens_per_second: generating one sequence, and reading a prompt: medians of a few repeats.
    """

    name: str
    path: str
    bytes: int
    bits_per_weight: float
    fallback_tensors: int | None
    perplexity: float
    perplexity_error: float
    chunk_surprises: tuple[float, ...]
    tokens_per_second_generate: float
    tokens_per_second_prompt: float


def measure_rung(path: str | os.PathLike[str]) -> RungResult:
    """Return size, speed and perplexity of a model file.

    llama-perplexity reads the lab's own text, data/texts/evaluation.txt: 6 chunks of 512 tokens, of
    which it scores the second half of each. Perplexities compare only between models of one
    tokenizer. Raise ModelFileError, or ToolchainError if a tool fails.
    """
    path = Path(path).resolve()
    info = inspect(path)
    trial.check_loads(path)
    chunks, error = _measure_perplexity(path)
    generate, prompt = _measure_speed(path)
    made = read_record(path)
    return RungResult(
        name=info.file_type,
        path=str(path),
        bytes=info.n_bytes,
        bits_per_weight=info.bits_per_weight,
        fallback_tensors=sum(made["fallbacks"].values()) if made else None,
        perplexity=math.exp(statistics.fmean(chunks)),
        perplexity_error=error,
        chunk_surprises=chunks,
        tokens_per_second_generate=generate,
        tokens_per_second_prompt=prompt,
    )


def climb(source: str | os.PathLike[str], quants: Iterable[str] = LADDER) -> list[RungResult]:
    """Make and measure a copy of a model in each quant; return the results, smallest file first.

    Every rung is a copy of `source` and no better than it: the ladder shows size, speed, and how
    much each rung loses of what the source had. A line is printed for each rung. Raise what
    `requantize` and `measure_rung` raise.
    """
    wanted = [check_quant(quant) for quant in quants]
    results = []
    for number, quant in enumerate(wanted, start=1):
        result = measure_rung(requantize(source, quant))
        results.append(result)
        print(
            f"{number} of {len(wanted)}: {quant}, {result.bytes / 1e6:.0f} MB, perplexity "
            f"{result.perplexity:.2f}, {result.tokens_per_second_generate:.0f} tokens a second"
        )
    return sorted(results, key=lambda result: result.bytes)


def compare_rungs(rung: RungResult, reference: RungResult) -> tuple[float, float]:
    """Return the perplexity relative to a reference on the same text, and its standard error.

    The difference is taken chunk by chunk: that a chunk is hard for both files cancels, so the
    error is far smaller than those of the two perplexities would suggest.
    """
    pairs = zip(rung.chunk_surprises, reference.chunk_surprises, strict=True)
    differences = [mine - other for mine, other in pairs]
    ratio = math.exp(statistics.fmean(differences))
    return ratio, ratio * statistics.stdev(differences) / math.sqrt(len(differences))


def _measure_perplexity(path: Path) -> tuple[tuple[float, ...], float]:
    """Return the mean surprise of each chunk in nats, and the perplexity's standard error."""
    text = paths.data_dir() / "texts" / "evaluation.txt"
    memory = paths.models_dir() / "perplexity.json"
    both = f"{files.sha256_of(path)} {files.read_sha256(text)}"
    key = f"{both} {N_CTX}x{N_CHUNKS} {describe_build()}"
    known = files.read_json(memory).get(key)
    if not isinstance(known, dict):
        known = _run_perplexity(path, text)
        files.update_json(memory, key, known)
    return tuple(known["chunks"]), float(known["error"])


def _run_perplexity(path: Path, text: Path) -> dict[str, Any]:
    args = ["-m", str(path), "-f", str(text), "-c", str(N_CTX), "--chunks", str(N_CHUNKS)]
    for _ in range(2):
        done = run_tool("llama-perplexity", args)
        # It prints the perplexity of all chunks so far; what each chunk adds follows from that.
        totals = [
            int(number) * math.log(float(so_far))
            for number, so_far in re.findall(r"\[(\d+)\]([\d.]+),", done.stdout)
        ]
        final = re.search(r"Final estimate: PPL = ([\d.]+) \+/- ([\d.]+)", done.stderr)
        # Its printing thread is not waited for at the end (llama.cpp #22142), so lines may be lost.
        if (
            final
            and totals
            and math.isclose(math.exp(totals[-1] / len(totals)), float(final[1]), rel_tol=1e-4)
        ):
            chunks = [b - a for a, b in zip([0.0, *totals], totals, strict=False)]
            return {"chunks": chunks, "error": float(final[2])}
    raise ToolchainError(f"llama-perplexity gave no perplexity of {path}; try again.")


def _measure_speed(path: Path) -> tuple[float, float]:
    """Return tokens a second: generating, and reading a prompt."""
    threads = str(count_threads())  # of llama.cpp's programs this one alone reads no variable
    model = str(path.absolute())
    args = ["-m", model, "-t", threads, "-p", "64", "-n", "32", "-r", "3", "-o", "json"]
    # It alone loads any libggml-*.so of the current folder: let that be its own.
    rows = json.loads(run_tool("llama-bench", args, cwd=find_build().bin).stdout)
    speeds = {bool(row["n_gen"]): statistics.median(row["samples_ts"]) for row in rows}
    return speeds[True], speeds[False]
