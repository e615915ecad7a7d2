"""A ladder of quants: copies of one model, each with its size, its speed and its perplexity.

llama.cpp's own tools do the work: llama-quantize makes the copies (see `requantize`), llama-bench
times them and llama-perplexity reads a text with them. What has been made or read is not made or
read again, so a climb that was ended goes on where it stopped. Speed is measured each time.
"""

from __future__ import annotations

import json
import math
import os
import re
import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import hashes, paths, toolchain
from ..errors import ToolchainError
from ..loading import count_threads
from . import gguf_file, trial
from .requantize import check_quant, read_record, requantize

LADDER = ("Q2_K", "Q3_K_M", "Q4_0", "Q4_1", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "BF16")
N_CTX, N_CHUNKS = 512, 6

Say = Callable[[str], None]


@dataclass(frozen=True)
class RungResult:
    """One quant of a ladder, measured.

    bytes:             size of the file.
    bits_per_weight:   of the tensors that are in the file, whatever its name promises.
    fallback_tensors:  tensors that got another type than the quant wants, because their rows do
                       not divide into its blocks; None when the lab did not make the file.
    perplexity:        exp of the mean surprise of a token, with its standard error over tokens.
    chunk_surprises:   mean surprise of a token in each chunk of the text, in nats (see `compare`).
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

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values; `from_dict` is its inverse."""
        return {**asdict(self), "chunk_surprises": list(self.chunk_surprises)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RungResult:
        """The result that `to_dict` described."""
        return cls(**{**values, "chunk_surprises": tuple(values["chunk_surprises"])})


def measure(path: str | os.PathLike[str], text: str | os.PathLike[str] | None = None) -> RungResult:
    """Size, speed and perplexity of a model file.

    text: what it reads, at least 1024 tokens; llama-perplexity takes up to 6 chunks of 512 and
    scores the second half of each. By default the lab's own text, data/texts/evaluation.txt.
    Perplexities compare only where text, context and tokenizer are the same.

    Raises ModelFileError, or ToolchainError when a tool fails or the text is too short.
    """
    path = Path(path).resolve()
    info = gguf_file.inspect(path)
    trial.check_loads(path)
    chunks, error = _measure_perplexity(
        path, Path(text or paths.data_dir() / "texts" / "evaluation.txt").resolve()
    )
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


def climb(
    source: str | os.PathLike[str],
    quants: Iterable[str] = LADDER,
    text: str | os.PathLike[str] | None = None,
    say: Say = print,
) -> list[RungResult]:
    """Make and measure a copy of a model in each quant; the results, the smallest file first.

    Every rung is a copy of `source`, so quality above that of the source can't come back: what
    the ladder tells is size, speed, and how much each rung loses of what the source had. say gets
    a line for each rung. Raises what `requantize` and `measure` raise.
    """
    wanted = [check_quant(quant) for quant in quants]
    results = []
    for number, quant in enumerate(wanted, start=1):
        result = measure(requantize(source, quant), text)
        results.append(result)
        say(
            f"{number} of {len(wanted)}: {quant}, {result.bytes / 1e6:.0f} MB, perplexity "
            f"{result.perplexity:.2f}, {result.tokens_per_second_generate:.0f} tokens a second"
        )
    return sorted(results, key=lambda result: result.bytes)


def compare(rung: RungResult, reference: RungResult) -> tuple[float, float]:
    """Perplexity relative to a reference on the same text, and its standard error.

    The difference is taken chunk by chunk: that a chunk is hard for both files cancels, so the
    error is far smaller than those of the two perplexities would suggest.
    """
    pairs = zip(rung.chunk_surprises, reference.chunk_surprises, strict=True)
    differences = [mine - other for mine, other in pairs]
    ratio = math.exp(statistics.fmean(differences))
    return ratio, ratio * statistics.stdev(differences) / math.sqrt(len(differences))


def _measure_perplexity(path: Path, text: Path) -> tuple[tuple[float, ...], float]:
    """Mean surprise of each chunk in nats, and the standard error of the perplexity."""
    memory = paths.models_dir() / "perplexity.json"
    files = f"{hashes.sha256_of(path)} {hashes.read_sha256(text)}"
    key = f"{files} {N_CTX}x{N_CHUNKS} {toolchain.describe_build()}"
    known = hashes.read_json(memory).get(key)
    if not isinstance(known, dict):
        known = _run_perplexity(path, text)
        hashes.update_json(memory, key, known)
    return tuple(known["chunks"]), float(known["error"])


def _run_perplexity(path: Path, text: Path) -> dict[str, Any]:
    args = ["-m", str(path), "-f", str(text), "-c", str(N_CTX), "--chunks", str(N_CHUNKS)]
    for _ in range(2):
        done = toolchain.run_tool("llama-perplexity", args)
        if short := re.search(r"you need at least .*|tokenizes to only .*", done.stderr):
            raise ToolchainError(f"{text} is too short for a perplexity: {short[0]}.")
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
    """Tokens a second: generating, and reading a prompt."""
    threads = str(count_threads())  # of llama.cpp's programs this one alone reads no variable
    args = ["-m", str(path), "-t", threads, "-p", "64", "-n", "32", "-r", "3", "-o", "json"]
    try:
        rows = json.loads(toolchain.run_tool("llama-bench", args).stdout)
        speeds = {bool(row["n_gen"]): statistics.median(row["samples_ts"]) for row in rows}
        return speeds[True], speeds[False]
    except (ValueError, KeyError, TypeError) as error:
        raise ToolchainError(f"llama-bench gave no speed of {path}; try again.") from error
