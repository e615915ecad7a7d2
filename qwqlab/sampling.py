"""Sampling: every number and the order of llama.cpp's samplers, under llama.cpp's own names.

A `Sampling` is a value: it is checked when it is made and never changes. Its defaults are those
of llama.cpp. What a setting belongs to, its flag and its range stand in `SETTINGS`, one row each,
and everything else (flags, widgets, warnings) reads them from there.

>>> Sampling(samplers=("top_p", "min_p", "top_k", "temperature"), repeat_penalty=1.1).inert()[0]
'repeat_penalty=1.1 has no effect: `penalties` is not in the order'
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from .errors import SettingError

DEFAULT_ORDER = (
    "penalties",
    "dry",
    "top_n_sigma",
    "top_k",
    "typ_p",
    "top_p",
    "min_p",
    "xtc",
    "temperature",
)
ARTICLE_ORDER = ("top_k", "top_p", "min_p", "temperature", "dry", "typ_p", "xtc")
ARTICLE_ORDER_WITH_PENALTIES = (
    "top_k",
    "top_p",
    "min_p",
    "temperature",
    "penalties",
    "dry",
    "typ_p",
    "xtc",
)
STAGES = (*DEFAULT_ORDER, "infill", "adaptive_p")
# What llama.cpp reads beside a stage's own name, its kebab-case and its name without underscores.
ALIASES = {"nucleus": "top_p", "temp": "temperature", "typ": "typ_p"}


@dataclass(frozen=True)
class Setting:
    """One number of the chain.

    stage is the sampler that reads it; neutral is the value at which it does nothing (None: it
    only tunes another setting, and does nothing while that one is neutral).
    """

    name: str
    flags: tuple[str, ...]
    stage: str
    kind: type
    low: float
    high: float
    neutral: float | None
    meaning: str


INT_MAX = 2**31 - 1
FLOAT_MAX = 3.4e38
# llama.cpp divides logits by it: zero and what has no finite inverse are refused there too.
SMALLEST_PENALTY = 1e-38

SETTINGS = (
    Setting("temp", ("--temp", "--temperature"), "temperature", float, 0, FLOAT_MAX, 1.0,
            "divides every logit; 0 keeps only the most likely token"),
    Setting("dynatemp_range", ("--dynatemp-range",), "temperature", float, 0, FLOAT_MAX, 0.0,
            "how far entropy may move the temperature, down and up"),
    Setting("dynatemp_exp", ("--dynatemp-exp",), "temperature", float, 0, FLOAT_MAX, None,
            "how entropy maps to temperature"),
    Setting("top_k", ("--top-k",), "top_k", int, -1, INT_MAX, 0,
            "keeps the k most likely tokens"),
    Setting("top_p", ("--top-p",), "top_p", float, 0, 1, 1.0,
            "keeps the smallest set of tokens whose probability reaches p"),
    Setting("min_p", ("--min-p",), "min_p", float, 0, 1, 0.0,
            "drops tokens less likely than p times the most likely one"),
    Setting("typ_p", ("--typical", "--typical-p"), "typ_p", float, 0, 1, 1.0,
            "keeps tokens whose surprise is near the expected one, up to probability p"),
    Setting("top_n_sigma", ("--top-nsigma", "--top-n-sigma"), "top_n_sigma", float, -1, FLOAT_MAX,
            -1.0, "keeps logits within n standard deviations of the largest"),
    Setting("xtc_probability", ("--xtc-probability",), "xtc", float, 0, 1, 0.0,
            "how often the top choices are excluded"),
    Setting("xtc_threshold", ("--xtc-threshold",), "xtc", float, 0, 1, None,
            "the probability from which a token counts as a top choice"),
    Setting("repeat_penalty", ("--repeat-penalty",), "penalties", float, SMALLEST_PENALTY,
            FLOAT_MAX, 1.0, "divides positive logits of recent tokens, multiplies negative ones"),
    Setting("frequency_penalty", ("--frequency-penalty",), "penalties", float, -FLOAT_MAX,
            FLOAT_MAX, 0.0, "subtracted for each recent occurrence of a token"),
    Setting("presence_penalty", ("--presence-penalty",), "penalties", float, -FLOAT_MAX,
            FLOAT_MAX, 0.0, "subtracted once if a token occurred recently"),
    Setting("repeat_last_n", ("--repeat-last-n",), "penalties", int, 0, INT_MAX, None,
            "how many tokens count as recent, the prompt's included"),
    Setting("dry_multiplier", ("--dry-multiplier",), "dry", float, 0, FLOAT_MAX, 0.0,
            "strength of DRY, which penalises continuing a repeated sequence"),
    Setting("dry_base", ("--dry-base",), "dry", float, 1, FLOAT_MAX, None,
            "growth of DRY's penalty with the length of the repetition"),
    Setting("dry_allowed_length", ("--dry-allowed-length",), "dry", int, 0, INT_MAX, None,
            "repetitions up to this length go free"),
    Setting("dry_penalty_last_n", ("--dry-penalty-last-n",), "dry", int, 0, INT_MAX, None,
            "how many tokens DRY scans"),
    Setting("mirostat", ("--mirostat",), "mirostat", int, 0, 2, 0,
            "1 or 2: replaces the chain by temperature and Mirostat"),
    Setting("mirostat_lr", ("--mirostat-lr",), "mirostat", float, 0, FLOAT_MAX, None,
            "learning rate eta"),
    Setting("mirostat_ent", ("--mirostat-ent",), "mirostat", float, 0, FLOAT_MAX, None,
            "target surprise tau, in bits"),
    Setting("adaptive_target", ("--adaptive-target",), "adaptive_p", float, -1, 1, -1.0,
            "the probability near which tokens are chosen"),
    Setting("adaptive_decay", ("--adaptive-decay",), "adaptive_p", float, 0, 0.99, None,
            "memory of adaptive_p"),
)  # fmt: skip
BY_NAME = {setting.name: setting for setting in SETTINGS}


@dataclass(frozen=True)
class Sampling:
    """The numbers and the order of one run. Raises `SettingError` for what llama.cpp can't use.

    Sources: Holtzman 2019 (top_p), Keskar 2019 (repeat_penalty), Meister 2022 (typ_p), Nguyen
    2024 (min_p), Tang 2024 (top_n_sigma), Basu 2020 (mirostat); DRY and XTC come from text
    generation front ends and llama.cpp PRs #9702 and #9742.
    """

    samplers: tuple[str, ...] = DEFAULT_ORDER
    temp: float = 0.8
    dynatemp_range: float = 0.0
    dynatemp_exp: float = 1.0
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    typ_p: float = 1.0
    top_n_sigma: float = -1.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repeat_last_n: int = 64
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = 64
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    mirostat: int = 0
    mirostat_lr: float = 0.1
    mirostat_ent: float = 5.0
    adaptive_target: float = -1.0
    adaptive_decay: float = 0.9

    def __post_init__(self) -> None:
        object.__setattr__(self, "samplers", check_order(self.samplers))
        object.__setattr__(self, "dry_sequence_breakers", _check_breakers(self))
        for setting in SETTINGS:
            value = _check_number(setting, getattr(self, setting.name))
            object.__setattr__(self, setting.name, value)

    def chain(self) -> tuple[str, ...]:
        """The stages that llama.cpp will run, in order, the one that draws last.

        >>> Sampling(mirostat=2).chain()
        ('temperature', 'mirostat_v2')
        """
        if self.mirostat:
            return ("temperature", "mirostat" if self.mirostat == 1 else "mirostat_v2")
        # adaptive_p draws by itself and always runs last, wherever it stands in the list.
        stages = tuple(name for name in self.samplers if name != "adaptive_p")
        return (*stages, "adaptive_p" if "adaptive_p" in self.samplers else "dist")

    def inert(self) -> tuple[str, ...]:
        """A sentence for every setting that has no effect, with the reason."""
        from .inert import explain

        return explain(self)

    def with_(self, **changes: Any) -> Sampling:
        """A copy with some settings changed; an unknown name is a `SettingError`."""
        known = {item.name for item in fields(self)}
        for name in changes:
            if name not in known:
                raise SettingError(f"{name!r} is not a sampling setting; they are {sorted(known)}")
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values; `from_dict` is its inverse."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Sampling:
        """The Sampling that `to_dict` described."""
        return cls().with_(**values)


def check_order(names: Iterable[str]) -> tuple[str, ...]:
    """Sampler names as llama.cpp's canonical ones, in the order given.

    Unlike llama.cpp, which skips a name that it does not know and runs a doubled one twice, this
    raises `SettingError`.

    >>> check_order(["top-k", "nucleus", "temp"])
    ('top_k', 'top_p', 'temperature')
    """
    if isinstance(names, str):
        names = names.split(";") if names else []
    order: list[str] = []
    for name in names:
        key = str(name).strip().lower().replace("-", "_")
        stage = ALIASES.get(key) or next(
            (s for s in STAGES if key in (s, s.replace("_", ""))), None
        )
        if stage is None:
            raise SettingError(
                f"{name!r} is not a sampler of llama.cpp; choose from {', '.join(STAGES)}"
            )
        if stage in order:
            raise SettingError(f"{stage!r} stands twice in the order; name each sampler once")
        order.append(stage)
    return tuple(order)


def _check_number(setting: Setting, given: Any) -> float | int:
    if isinstance(given, bool) or not isinstance(given, numbers.Real):
        raise SettingError(f"{setting.name}={given!r} is not a number")
    value: Any = given
    if not math.isfinite(value):
        raise SettingError(f"{setting.name}={value!r} is not finite; give a number")
    if setting.kind is int and value != int(value):
        raise SettingError(f"{setting.name}={value!r} is not a whole number")
    if not setting.low <= value <= setting.high:
        low, high = (_bound(bound) for bound in (setting.low, setting.high))
        raise SettingError(f"{setting.name}={value!r} is out of range; give {low} to {high}")
    number: float | int = setting.kind(value)
    return number


def _bound(value: float) -> str:
    return "the largest float" if value == FLOAT_MAX else f"{value:g}"


def _check_breakers(sampling: Sampling) -> tuple[str, ...]:
    breakers: Any = sampling.dry_sequence_breakers
    if isinstance(breakers, str) or not all(isinstance(b, str) and b for b in breakers):
        raise SettingError(
            f"dry_sequence_breakers={breakers!r} must be a list of strings that are not empty"
        )
    if any("\0" in b for b in breakers):
        raise SettingError("dry_sequence_breakers may not hold a NUL character")
    return tuple(breakers)


_ARTICLE: dict[str, Any] = {
    "temp": 0.6,
    "top_k": 40,
    "top_p": 0.95,
    "min_p": 0.0,
    "repeat_penalty": 1.1,
    "dry_multiplier": 0.5,
}

PRESETS: dict[str, Sampling] = {
    # Qwen's model card for QwQ-32B: no penalty, min_p 0.
    "official": Sampling(temp=0.6, top_k=40, top_p=0.95, min_p=0.0),
    "llama.cpp": Sampling(),
    # Unsloth's command with the fix: its list has no `penalties`.
    "article": Sampling(samplers=ARTICLE_ORDER, **_ARTICLE),
    # Unsloth's command without the fix, which also sets min_p to 0.1.
    "article_without_fix": Sampling(**{**_ARTICLE, "min_p": 0.1}),
    # The article's list with `penalties` put back, before `dry` as in llama.cpp's own order.
    "article_with_penalties": Sampling(samplers=ARTICLE_ORDER_WITH_PENALTIES, **_ARTICLE),
}


def preset(name: str) -> Sampling:
    """A named `Sampling`: official, llama.cpp, article, article_without_fix,
    article_with_penalties."""
    if name not in PRESETS:
        raise SettingError(f"{name!r} is not a preset; choose from {', '.join(PRESETS)}")
    return PRESETS[name]


__all__ = ["ARTICLE_ORDER", "ARTICLE_ORDER_WITH_PENALTIES", "DEFAULT_ORDER", "PRESETS", "SETTINGS",
           "STAGES", "Sampling", "Setting", "check_order", "preset"]  # fmt: skip
