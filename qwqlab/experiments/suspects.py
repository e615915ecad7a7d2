"""The article's suspects that llama.cpp can override: YaRN, and the epsilon of RMSNorm.

Each is set to the opposite of what the model's file has. `measure_conduct` compares the same runs,
with the same seeds, with and without it: valid code and loops. `measure_logits` compares the
predictions of a text, by their Kullback-Leibler divergence, which llama-perplexity computes;
`measure_files` does so for other files of the same model. The third suspect, the tokenizer, is in
`tokenizers_compared`.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .. import paths
from ..errors import SettingError, ToolchainError
from ..llamacpp import Loading, run_tool
from ..models import GGUFInfo
from ..sampling import Engine, Request, Run, preset
from ..stats import Paired, pair, wilson
from .metrics import RunMetrics, measure, number_prompts
from .penalty_and_order import LOADING, read_prompts
from .store import RunStore
from .sweeps import OnRun, sweep

YARN, EPSILON, CONTROL = "YaRN", "RMSNorm epsilon", "control"
QWQ_CONTEXT = 32_768  # of QwQ-32B before YaRN, as its model card states
FACTOR = 4.0
EPSILONS = (1e-5, 1e-6)
CONTEXTS = ((512, 4), (1920, 1))
"""Contexts and chunks to read: short, and the longest that the lab's text allows, of which
llama-perplexity wants twice the context: it has 4,124 tokens of SmolLM2 and 3,999 of QwQ-32B."""
# What llama-perplexity calls its numbers, each with its error behind a ±.
_LABELS = (r"Mean PPL\(Q\)", r"Mean\s+KLD", "Same top p", r"Mean ln\(PPL\(Q\)/PPL\(base\)\)")


@dataclass(frozen=True)
class Suspect:
    """One suspect: what is overridden, in words, and by which Loading. title begins a sentence."""

    name: str
    title: str
    loading: Loading

    def flags(self) -> list[str]:
        """Return llama.cpp's flags for it."""
        return self.loading.flags()


@dataclass(frozen=True)
class Conduct:
    """How an override changes what the model writes, counted over the same runs."""

    suspect: str
    code: Paired
    loops: Paired
    same_texts: int
    n: int


def list_suspects(info: GGUFInfo) -> tuple[Suspect, ...]:
    """Return YaRN and the epsilon, each the opposite of what a model's file has, and a control.

    The control changes nothing but rounding: attention is computed in another order, over a cache
    of other numbers. It shows how much any change does that means nothing.

    YaRN stretches by 4 what the model was trained on: 32,768 tokens for QwQ-32B, whose files give
    131,072, and the file's own context for another model. Raise SettingError for a file that gives
    no context or no epsilon.
    """
    if not info.n_ctx_train or not info.rms_norm_eps:
        raise SettingError(
            f"{info.path} gives no context length or no RMSNorm epsilon; choose another model"
        )
    stretched = info.architecture == "qwen2" and info.n_ctx_train == FACTOR * QWQ_CONTEXT
    original = QWQ_CONTEXT if stretched else info.n_ctx_train
    own = min(EPSILONS, key=lambda each: abs(math.log(each / (info.rms_norm_eps or each))))
    other = EPSILONS[1 - EPSILONS.index(own)]
    key = f"{info.architecture}.attention.layer_norm_rms_epsilon"
    return (
        Suspect(
            YARN,
            f"YaRN, factor {FACTOR:g} from {original:,} tokens",
            Loading(rope_scaling="yarn", rope_scale=FACTOR, yarn_orig_ctx=original),
        ),
        Suspect(
            EPSILON,
            f"RMSNorm epsilon {other:g} instead of {own:g}",
            Loading(override_kv=(f"{key}=float:{other:g}",)),
        ),
        Suspect(
            CONTROL,
            "nothing but other rounding",
            Loading(flash_attn="off", cache_type_k="bf16", cache_type_v="f32"),
        ),
    )


def plan_paired_requests(n_code: int = 48, n_long: int = 10, code_seeds: int = 1) -> list[Request]:
    """Return the runs of each arm: so many prompts for code and for a long text.

    They have QwQ-32B's official numbers and no penalty, to measure the model and not a sampler.
    """
    plans = (("code", n_code, code_seeds, 160, 0), ("long", n_long, 1, 400, 1000))
    return [
        Request(prompt, preset("official"), first + 100 * place + seed, n_predict, label)
        for label, n_prompts, n_seeds, n_predict, first in plans
        for place, prompt in enumerate(read_prompts(label)[:n_prompts])
        for seed in range(n_seeds)
    ]


def measure_conduct(
    model: Path,
    suspects: Sequence[Suspect],
    requests: Sequence[Request],
    store: RunStore | None = None,
    on_run: OnRun | None = None,
) -> list[Conduct]:
    """Run the same requests without and with each override, and compare them run by run.

    With a store, a second call finds its runs there and only counts them.
    """
    arms = [LOADING, *(merge(LOADING, suspect.loading) for suspect in suspects)]
    written = []
    for loading in arms:
        with Engine(model, loading) as engine:
            written.append(sweep(engine, requests, store, "suspects", on_run=on_run))
    base, *others = written
    return [_compare(s.name, base, runs) for s, runs in zip(suspects, others, strict=True)]


def merge(first: Loading, second: Loading) -> Loading:
    """Return the first Loading with what the second changes of llama.cpp's defaults."""
    plain, changed = Loading().to_dict(), second.to_dict()
    changes = {name: value for name, value in changed.items() if value != plain[name]}
    return replace(first, **changes)


def _compare(suspect: str, before: Sequence[Run], after: Sequence[Run]) -> Conduct:
    pairs = list(zip(before, after, strict=True))
    code = [each for each in pairs if each[0].request.label == "code"]
    long = [each for each in pairs if each[0].request.label == "long"]

    def compare(
        what: str, runs: list[tuple[Run, Run]], had: Callable[[RunMetrics], bool]
    ) -> Paired:
        prompts = number_prompts([run for run, _ in runs])
        return pair(what, [(had(measure(a)), had(measure(b))) for a, b in runs], prompts)

    return Conduct(
        suspect,
        compare("valid code", code, lambda found: found.valid_code),
        compare("loops", long, lambda found: found.loop),
        sum(a.tokens == b.tokens for a, b in pairs),
        len(pairs),
    )


@dataclass(frozen=True)
class LogitEffect:
    """How a variant changes the predictions of a text, compared with the unchanged file.

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


def measure_logits(
    model: Path,
    suspects: Sequence[Suspect],
    n_ctx: int = 512,
    n_chunks: int = 4,
) -> list[LogitEffect]:
    """Return what each override does to the model's predictions of a text, by llama-perplexity.

    Errors are those of `measure_files`.
    """
    variants = {each.name: (each.title, ["-m", str(model), *each.flags()]) for each in suspects}
    return _measure(model, variants, n_ctx, n_chunks)


def measure_files(
    reference: Path,
    files: Mapping[str, Path],
    n_ctx: int = 512,
    n_chunks: int = 4,
) -> list[LogitEffect]:
    """Return how far the predictions of other files of a model are from the reference's.

    llama-perplexity keeps the reference's logits in a temporary file: 2 bytes for each token of the
    vocabulary and scored token (100 MB for 4 chunks of 512 with SmolLM2). Raise SettingError for
    fewer than 100 scored tokens, too few for its statistics; ToolchainError if it fails or the text
    is too short.
    """
    variants = {name: (name, ["-m", str(path)]) for name, path in files.items()}
    return _measure(reference, variants, n_ctx, n_chunks)


def _measure(
    reference: Path,
    variants: Mapping[str, tuple[str, list[str]]],
    n_ctx: int,
    n_chunks: int,
) -> list[LogitEffect]:
    n_tokens = n_chunks * (n_ctx - 1 - n_ctx // 2)
    if n_tokens < 100:
        raise SettingError(
            f"n_ctx={n_ctx} and n_chunks={n_chunks} score fewer than 100 tokens; raise one of them"
        )
    text = paths.data_dir() / "texts" / "evaluation.txt"
    common = ["-f", str(text), "-c", str(n_ctx), "--chunks", str(n_chunks)]
    effects = []
    with tempfile.TemporaryDirectory(prefix="qwqlab-") as folder:
        logits = ["--kl-divergence-base", str(Path(folder) / "logits")]
        print(f"context {n_ctx}: the unchanged file ...")
        args = ["-m", str(reference), *common, *logits]
        done = run_tool("llama-perplexity", args)
        # It prints this and still exits with 0.
        if re.search(r"you need at least|tokenizes to only", done.stderr):
            raise ToolchainError(
                f"{text} has fewer than {2 * n_ctx} tokens, which a context of {n_ctx} needs; give "
                "a smaller n_ctx."
            )
        for name, (title, flags) in variants.items():
            print(f"context {n_ctx}: {title} ...")
            args = [*flags, *common, *logits, "--kl-divergence"]
            effects.append(_read_effect(name, n_ctx, n_tokens, args))
    return effects


def _read_effect(name: str, n_ctx: int, n_tokens: int, args: list[str]) -> LogitEffect:
    for _ in range(3):
        # Its printing thread is not waited for at the end (llama.cpp #22142): lines may be lost.
        printed = run_tool("llama-perplexity", args).stdout
        found = [re.search(rf"^{label}\s*:\s*(\S+) ±\s*(\S+)", printed, re.M) for label in _LABELS]
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
