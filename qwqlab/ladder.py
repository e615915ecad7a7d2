"""A ladder of quants: copies of one model, each with its size, its speed and its perplexity.

llama.cpp's own tools do the work: llama-quantize makes the copies, llama-bench times them and
llama-perplexity reads a text with them. What has been made or measured is not made again, so a
climb that was ended goes on where it stopped. Speed is the exception: it is measured each time.
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

from . import gguf_file, hashes, paths, toolchain
from .download import check_disk
from .errors import ModelFileError, SettingError, ToolchainError
from .gguf_file import GGUFInfo

# What `llama-quantize --help` lists, the smallest first; MXFP4_MOE is only for mixtures of experts.
QUANTS = ("Q1_0", "TQ1_0", "TQ2_0", "Q2_0", "Q2_K", "IQ3_XXS", "IQ3_XS", "IQ3_S", "Q3_K_S", "IQ3_M",
          "Q3_K_M", "Q3_K_L", "IQ4_XS", "IQ4_NL", "Q4_0", "Q4_K_S", "Q4_K_M", "Q4_1", "Q5_0",
          "Q5_K_S", "Q5_K_M", "Q5_1", "Q6_K", "Q8_0", "BF16", "F16", "F32")  # fmt: skip
# Refused without an importance matrix, which llama-imatrix computes from a text.
NEED_IMATRIX = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "Q2_K_S")
ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}
UNQUANTISED = {"F32", "F16", "BF16"}

LADDER = ("Q2_K", "Q3_K_M", "Q4_0", "Q4_1", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "BF16")
N_CTX = 512

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
    FetchError when the disk has no room or another file has that name, ToolchainError with
    llama-quantize's own words when it fails.
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
    made = read_record(target)
    if target.is_file():
        if made is None:
            raise ModelFileError(
                f"{target} is not a copy that the lab made; rename it or move it away."
            )
        if origin.items() <= made.items():
            return target
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        fallbacks = _quantize(info, staged, quant, target.name)
        record = {**origin, "sha256": hashes.read_sha256(staged), "fallbacks": fallbacks}
        hashes.update_json(_records(), target.name, record)
        staged.replace(target)
    finally:
        staged.unlink(missing_ok=True)
    return target


def sweep_copy(source: str | os.PathLike[str]) -> Path:
    """The copy that the lab takes for sweeps: Q4_0, for speed in batches and for exactness.

    llama.cpp repacks Q4_0 at load into blocks that its kernels read for many sequences at once;
    Q4_1 has no such kernels. And a product of Q4_0 is a sum of whole numbers, so what a sequence
    draws does not depend on how many others share its batch (`Engine.width_independent`).
    MEASURED
    """
    return requantize(source, "Q4_0")


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
    record = hashes.read_json(_records()).get(path.name)
    if not isinstance(record, dict) or path.resolve().parent != paths.models_dir():
        return None
    is_it = path.is_file() and hashes.sha256_of(path) == record.get("sha256")
    return record if is_it else None


def _records() -> Path:
    return paths.models_dir() / "quants.json"


def _quantize(info: GGUFInfo, target: Path, quant: str, name: str) -> dict[str, int]:
    """Run llama-quantize; the fallbacks that it reports, counted."""
    requantizes = not set(info.bytes_by_type) <= UNQUANTISED
    flags = ["--allow-requantize"] if requantizes else []
    plan = toolchain.run_tool("llama-quantize", [*flags, "--dry-run", info.path, quant]).stderr
    if size := re.search(r"quant size\s*=\s*([\d.]+) MiB", plan):
        n_bytes = int(float(size[1]) * 2**20) + info.data_offset
        check_disk(target.parent, n_bytes, name, "set QWQLAB_HOME to a folder on a larger disk")
    log = toolchain.run_tool("llama-quantize", [*flags, info.path, target, quant]).stderr
    fallbacks: dict[str, int] = {}
    for wanted, got in re.findall(r"required for type\s+(\S+)\) -> falling back to\s+(\S+)", log):
        key = f"{wanted} -> {got}"
        fallbacks[key] = fallbacks.get(key, 0) + 1
    return fallbacks


def measure(path: str | os.PathLike[str], text: str | os.PathLike[str] | None = None) -> RungResult:
    """Size, speed and perplexity of a model file.

    text: what it reads, at least 1024 tokens; llama-perplexity takes chunks of 512 and scores the
    second half of each. By default the lab's own text, data/texts/evaluation.txt. Perplexities
    compare only where text, context and tokenizer are the same.

    Raises ModelFileError, or ToolchainError when a tool fails or the text is too short.
    """
    path = Path(path).resolve()
    info = gguf_file.inspect(path)
    gguf_file.check_loads(path)
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
    key = " ".join([hashes.sha256_of(path), hashes.read_sha256(text), toolchain.describe_build()])
    known = hashes.read_json(memory).get(key)
    if not isinstance(known, dict):
        known = _run_perplexity(path, text)
        hashes.update_json(memory, key, known)
    return tuple(known["chunks"]), float(known["error"])


def _run_perplexity(path: Path, text: Path) -> dict[str, Any]:
    args = ["-m", path, "-f", text, "-c", str(N_CTX)]
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
    args = ["-m", path, "-p", "64", "-n", "32", "-r", "3", "-o", "json"]
    try:
        rows = json.loads(toolchain.run_tool("llama-bench", args).stdout)
        speeds = {bool(row["n_gen"]): statistics.median(row["samples_ts"]) for row in rows}
        return speeds[True], speeds[False]
    except (ValueError, KeyError, TypeError) as error:
        raise ToolchainError(f"llama-bench gave no speed of {path}; try again.") from error
