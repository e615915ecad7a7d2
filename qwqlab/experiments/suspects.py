"""The article's suspects that llama.cpp can override: YaRN, and the epsilon of RMSNorm.

Each is flipped against what the model's file says, and what is written is compared: valid code and
loops, the same seeds in both arms. What becomes of the predictions stands in `divergence`, the
third suspect, the tokenizer, in `tokenizer_diff`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..engine import Engine
from ..errors import SettingError
from ..gguf_file import GGUFInfo
from ..loading import Loading
from ..paired import Paired, pair
from ..records import Request, Run
from ..sampling import preset
from .metrics import measure
from .penalties import LOADING, read_prompts
from .store import RunStore
from .sweeps import OnRun, sweep

YARN, EPSILON, CONTROL = "YaRN", "RMSNorm epsilon", "control"
QWQ_CONTEXT = 32_768  # of QwQ-32B before YaRN, as its model card says
FACTOR = 4.0
EPSILONS = (1e-5, 1e-6)


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


def plan_requests(
    n_code: int = 12, n_long: int = 10, code_seeds: int = 4, long_seeds: int = 1
) -> list[Request]:
    """Prompts for short programs and for long texts, each with several seeds.

    The official numbers of QwQ-32B, no penalty: what is measured is the model, not a sampler.
    """
    plans = (("code", n_code, code_seeds, 160, 0), ("long", n_long, long_seeds, 400, 1000))
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
