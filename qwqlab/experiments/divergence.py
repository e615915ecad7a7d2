"""What an override, or another file, does to predictions, measured by llama-perplexity."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import paths, toolchain
from ..errors import SettingError, ToolchainError
from ..stats import wilson
from .suspects import Suspect

CONTEXTS = ((512, 4), (1920, 1))
"""Contexts and chunks to read: short, and the longest that the lab's text allows, of which
llama-perplexity wants twice the context: it has 4,124 tokens of SmolLM2 and 3,999 of QwQ-32B."""
# What llama-perplexity calls its numbers, each with its error behind a ±.
LABELS = (r"Mean PPL\(Q\)", r"Mean\s+KLD", "Same top p", r"Mean ln\(PPL\(Q\)/PPL\(base\)\)")


@dataclass(frozen=True)
class LogitEffect:
    """What a variant does to the predictions of a text, against the file as it stands.

    kl is the mean Kullback-Leibler divergence in nats a token; same_top the share of tokens whose
    most likely next token stays; log_ratio the mean change of a token's surprise in nats. Each with
    its 95 % interval: two standard errors either way, for the share Wilson's. n_ctx is the context
    that was read, n_tokens how many were scored: its second half.
    """

    name: str
    n_ctx: int
    n_tokens: int
    perplexity: float
    kl: float
    kl_interval: tuple[float, float]
    same_top: float
    same_top_interval: tuple[float, float]
    log_ratio: float
    log_ratio_interval: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return asdict(self)


def measure_logits(
    model: Path,
    suspects: Sequence[Suspect],
    n_ctx: int = 512,
    n_chunks: int = 4,
    text: Path | None = None,
    say: Callable[[str], None] = print,
) -> list[LogitEffect]:
    """What each override does to the model's predictions of a text, by llama-perplexity.

    SettingError and ToolchainError as `measure_files`.
    """
    variants = {each.name: (each.title, ["-m", str(model), *each.flags()]) for each in suspects}
    return _measure(model, variants, n_ctx, n_chunks, text, say)


def measure_files(
    reference: Path,
    files: Mapping[str, Path],
    n_ctx: int = 512,
    n_chunks: int = 4,
    text: Path | None = None,
    say: Callable[[str], None] = print,
) -> list[LogitEffect]:
    """How far the predictions of other files of the same model lie from the reference's.

    Its file of reference logits takes 2 bytes a token of the vocabulary and scored token (100 MB
    for 4 chunks of 512 with SmolLM2) in a temporary folder. SettingError for fewer than 100 scored
    tokens, of which it says nothing; ToolchainError where it fails or the text is too short.
    """
    variants = {name: (name, ["-m", str(path)]) for name, path in files.items()}
    return _measure(reference, variants, n_ctx, n_chunks, text, say)


def _measure(
    reference: Path,
    variants: Mapping[str, tuple[str, list[str]]],
    n_ctx: int,
    n_chunks: int,
    text: Path | None,
    say: Callable[[str], None],
) -> list[LogitEffect]:
    n_tokens = n_chunks * (n_ctx - 1 - n_ctx // 2)
    if n_tokens < 100:
        raise SettingError(
            f"n_ctx={n_ctx} and n_chunks={n_chunks} score fewer than 100 tokens; raise one of them"
        )
    text = text or paths.data_dir() / "texts" / "evaluation.txt"
    common = ["-f", str(text), "-c", str(n_ctx), "--chunks", str(n_chunks)]
    effects = []
    with tempfile.TemporaryDirectory(prefix="qwqlab-") as folder:
        logits = ["--kl-divergence-base", str(Path(folder) / "logits")]
        say(f"context {n_ctx}: the file as it stands ...")
        args = ["-m", str(reference), *common, *logits]
        done = toolchain.run_tool("llama-perplexity", args)
        # It says so and ends as if all were well.
        if re.search(r"you need at least|tokenizes to only", done.stderr):
            raise ToolchainError(
                f"{text} has fewer than {2 * n_ctx} tokens, which a context of {n_ctx} needs; give "
                "a longer text or a smaller n_ctx."
            )
        for name, (title, flags) in variants.items():
            say(f"context {n_ctx}: {title} ...")
            args = [*flags, *common, *logits, "--kl-divergence"]
            effects.append(_read_effect(name, n_ctx, n_tokens, args))
    return effects


def _read_effect(name: str, n_ctx: int, n_tokens: int, args: list[str]) -> LogitEffect:
    for _ in range(3):
        # Its printing thread is not waited for at the end (llama.cpp #22142): lines may be lost.
        said = toolchain.run_tool("llama-perplexity", args).stdout
        found = [re.search(rf"^{label}\s*:\s*(\S+) ±\s*(\S+)", said, re.M) for label in LABELS]
        if all(found):
            numbers = [(float(m[1]), float(m[2])) for m in found if m]
            (perplexity, _), (kl, kl_error), (top, _), (ratio, ratio_error) = numbers
            return LogitEffect(
                *(name, n_ctx, n_tokens, perplexity),
                *(kl, _widen(kl, kl_error)),
                *(top / 100, wilson(round(top / 100 * n_tokens), n_tokens)),
                *(ratio, _widen(ratio, ratio_error)),
            )
    raise ToolchainError("llama-perplexity printed no divergence; try again")


def _widen(mean: float, error: float) -> tuple[float, float]:
    return mean - 1.96 * error, mean + 1.96 * error
