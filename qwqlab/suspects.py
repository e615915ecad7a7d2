"""The article's suspects that llama.cpp can override: YaRN, and the epsilon of RMSNorm.

Each is flipped against what the model's file says, and three things are measured: what becomes of
the logits, of the perplexity at short and long context, and of what is written: valid code and
loops, the same seeds in both arms. (The third suspect, the tokenizer, stands in `tokenizer_diff`.)
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import paths, toolchain
from .engine import Engine
from .errors import SettingError, ToolchainError
from .experiment import LOADING, read_prompts
from .gguf_file import GGUFInfo
from .loading import Loading
from .metrics import measure
from .records import Request, Run
from .runs import RunStore
from .sampling import preset
from .sweep import OnRun, sweep

YARN, EPSILON, CONTROL = "YaRN", "RMSNorm epsilon", "control"
QWQ_CONTEXT = 32_768  # of QwQ-32B before YaRN, as its model card says
FACTOR = 4.0
EPSILONS = (1e-5, 1e-6)
CONTEXTS = ((512, 4), (1920, 1))
"""Contexts and chunks to read: short, and the longest that the lab's text allows, of which
llama-perplexity wants twice the context: it has 4,124 tokens of SmolLM2 and 3,999 of QwQ-32B."""
HARM = 0.2
"""A change of 20 points in the rate of valid programs, or of loops, is what a culprit must make:
the article's own effect is three times that (see the experiment)."""


@dataclass(frozen=True)
class Suspect:
    """One suspect: what is overridden, in words, and by which Loading. title begins a sentence."""

    name: str
    title: str
    loading: Loading

    def flags(self) -> list[str]:
        """llama.cpp's flags for it."""
        return self.loading.flags()


@dataclass(frozen=True)
class LogitEffect:
    """What an override does to the predictions of a text, against the file as it stands.

    kl is the mean Kullback-Leibler divergence in nats a token; same_top the share of tokens whose
    most likely next token stays; log_ratio the mean change of a token's surprise in nats. Each with
    its standard error. n_ctx is the context that was read, in tokens; the second half is scored.
    """

    suspect: str
    n_ctx: int
    perplexity: float
    kl: float
    kl_error: float
    same_top: float
    same_top_error: float
    log_ratio: float
    log_ratio_error: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True)
class Paired:
    """A yes-or-no count in two arms over the same runs: how many had it before, with the override,
    and how many lost or gained it."""

    what: str
    n: int
    before: int
    after: int
    lost: int
    gained: int

    @property
    def interval(self) -> tuple[float, float]:
        """A 95 % interval for the change of the rate (Agresti and Min 2005: Wald's for paired
        proportions, with half a run added to each of the four cells)."""
        n, lost, gained = self.n + 2, self.lost + 0.5, self.gained + 0.5
        change = (gained - lost) / n
        error = math.sqrt(max(0.0, lost + gained - n * change * change)) / n
        return max(-1.0, change - 1.96 * error), min(1.0, change + 1.96 * error)

    @property
    def verdict(self) -> str:
        """ "acquitted" where the whole interval lies within HARM, "convicted" where it lies
        beyond 0 on one side, else "undecided": these runs can't tell.

        >>> Paired("valid code", 48, 30, 30, 1, 1).verdict
        'acquitted'
        >>> Paired("valid code", 48, 30, 5, 25, 0).verdict
        'convicted'
        >>> Paired("valid code", 6, 3, 3, 1, 1).verdict
        'undecided'
        """
        low, high = self.interval
        if low > -HARM and high < HARM:
            return "acquitted"
        return "convicted" if low > 0 or high < 0 else "undecided"


@dataclass(frozen=True)
class Conduct:
    """What the model writes under an override, against what it wrote without."""

    suspect: str
    code: Paired
    loops: Paired
    same_texts: int
    n: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return asdict(self)


def list_suspects(info: GGUFInfo) -> tuple[Suspect, ...]:
    """YaRN and the epsilon, for this model, each the opposite of what its file says; and a control.

    The control changes nothing but rounding: attention is computed in another order, over a cache
    of other numbers. What it does is what any change does that means nothing.

    YaRN stretches by 4 what the model was trained on: 32,768 tokens for QwQ-32B, whose files say
    131,072, and the file's own context for another model. SettingError for a file that says no
    context or no epsilon.
    """
    if not info.n_ctx_train or not info.rms_norm_eps:
        raise SettingError(f"{info.path} says nothing of its context or its RMSNorm epsilon")
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


def measure_logits(
    model: Path,
    suspects: Sequence[Suspect],
    n_ctx: int = 512,
    n_chunks: int = 4,
    text: Path | None = None,
    say: Callable[[str], None] = print,
) -> list[LogitEffect]:
    """What each override does to the model's predictions of a text, by llama-perplexity.

    Its file of reference logits takes 2 bytes a token of the vocabulary and scored token (100 MB
    for 4 chunks of 512 with SmolLM2) in a temporary folder. SettingError for fewer than 100 scored
    tokens, of which it says nothing; ToolchainError where it fails or the text is too short.
    """
    if n_chunks * (n_ctx - 1 - n_ctx // 2) < 100:
        raise SettingError(
            f"n_ctx={n_ctx} and n_chunks={n_chunks} score fewer than 100 tokens; raise one of them"
        )
    text = text or paths.data_dir() / "texts" / "evaluation.txt"
    common = ["-m", str(model), "-f", str(text), "-c", str(n_ctx), "--chunks", str(n_chunks)]
    effects = []
    with tempfile.TemporaryDirectory(prefix="qwqlab-") as folder:
        logits = ["--kl-divergence-base", str(Path(folder) / "logits")]
        say(f"context {n_ctx}: the file as it stands ...")
        done = toolchain.run_tool("llama-perplexity", [*common, *logits])
        # It says so and ends as if all were well.
        if re.search(r"you need at least|tokenizes to only", done.stderr):
            raise ToolchainError(
                f"{text} has fewer than {2 * n_ctx} tokens, which a context of {n_ctx} needs; give "
                "a longer text or a smaller n_ctx."
            )
        for suspect in suspects:
            say(f"context {n_ctx}: {suspect.title} ...")
            args = [*common, *logits, "--kl-divergence", *suspect.flags()]
            effects.append(_read_effect(suspect.name, n_ctx, args))
    return effects


def _read_effect(name: str, n_ctx: int, args: list[str]) -> LogitEffect:
    for _ in range(3):
        # Its printing thread is not waited for at the end (llama.cpp #22142): lines may be lost.
        said = toolchain.run_tool("llama-perplexity", args).stdout
        found = [re.search(rf"^{label}\s*:\s*(\S+) ±\s*(\S+)", said, re.M) for label in _LABELS]
        if all(found):
            numbers = [(float(m[1]), float(m[2])) for m in found if m]
            (perplexity, _), (kl, kl_error), (top, top_error), (ratio, ratio_error) = numbers
            return LogitEffect(
                *(name, n_ctx, perplexity, kl, kl_error),
                *(top / 100, top_error / 100, ratio, ratio_error),
            )
    raise ToolchainError("llama-perplexity printed no divergence; try again")


_LABELS = (r"Mean PPL\(Q\)", r"Mean\s+KLD", "Same top p", r"Mean ln\(PPL\(Q\)/PPL\(base\)\)")


def plan_requests(n_code: int = 12, n_seeds: int = 4, n_long: int = 10) -> list[Request]:
    """Code prompts with several seeds, and long prompts greedily, which loop most.

    The official numbers of QwQ-32B, no penalty: what is measured is the model, not a sampler.
    """
    official, greedy = preset("official"), preset("official").with_(temp=0.0)
    code = [
        Request(prompt, official, 100 * place + seed, 160, "code")
        for place, prompt in enumerate(read_prompts("code")[:n_code])
        for seed in range(n_seeds)
    ]
    long = [Request(prompt, greedy, 0, 400, "long") for prompt in read_prompts("long")[:n_long]]
    return [*code, *long]


def measure_conduct(
    model: Path,
    suspects: Sequence[Suspect],
    requests: Sequence[Request],
    store: RunStore | None = None,
    on_run: OnRun | None = None,
) -> list[Conduct]:
    """Run the same requests without and with each override, and compare run by run.

    A store keeps the runs, so that a second call counts and computes nothing anew.
    """
    arms = [LOADING, *(merge(LOADING, suspect.loading) for suspect in suspects)]
    done = []
    for loading in arms:
        with Engine(model, loading) as engine:
            done.append(sweep(engine, requests, store, "suspects", on_run=on_run))
    base, *others = done
    return [_compare(s.name, base, runs) for s, runs in zip(suspects, others, strict=True)]


def merge(first: Loading, second: Loading) -> Loading:
    """The first Loading with what the second changes of llama.cpp's defaults."""
    plain, changed = Loading().to_dict(), second.to_dict()
    changes = {name: value for name, value in changed.items() if value != plain[name]}
    return Loading.from_dict({**first.to_dict(), **changes})


def _compare(suspect: str, before: Sequence[Run], after: Sequence[Run]) -> Conduct:
    pairs = list(zip(before, after, strict=True))
    code = [(measure(a), measure(b)) for a, b in pairs if a.request.label == "code"]
    long = [(measure(a), measure(b)) for a, b in pairs if a.request.label == "long"]
    same = sum(a.tokens == b.tokens for a, b in pairs)
    return Conduct(
        suspect,
        pair("valid code", [(a.valid_code, b.valid_code) for a, b in code]),
        pair("loops", [(a.loop, b.loop) for a, b in long]),
        same,
        len(pairs),
    )


def pair(what: str, outcomes: Sequence[tuple[bool, bool]]) -> Paired:
    """Count pairs of (before, after).

    >>> pair("loops", [(True, True), (True, False), (False, False)])
    Paired(what='loops', n=3, before=2, after=1, lost=1, gained=0)
    """
    return Paired(
        what,
        len(outcomes),
        sum(before for before, _ in outcomes),
        sum(after for _, after in outcomes),
        sum(before and not after for before, after in outcomes),
        sum(after and not before for before, after in outcomes),
    )
