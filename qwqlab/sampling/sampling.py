"""Sampling: every number and the order of llama.cpp's samplers, under llama.cpp's own names.

A `Sampling` is a value: it is checked when it is made and never changes. Its defaults are those
of llama.cpp. What a setting belongs to, its flag and its range stand in `settings`, one row each,
and everything else (flags, widgets, warnings) reads them from there.

>>> Sampling(samplers=("top_p", "min_p", "top_k", "temperature"), repeat_penalty=1.1).inert()[0]
'repeat_penalty=1.1 has no effect: `penalties` is not in the order'
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ..errors import SettingError
from .settings import (
    DEFAULT_ORDER,
    SETTINGS,
    check_biases,
    check_breakers,
    check_number,
    check_order,
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


@dataclass(frozen=True)
class Sampling:
    """The numbers and the order of one run. Raises `SettingError` for what llama.cpp can't use.

    logit_bias holds llama.cpp's TOKEN_ID+BIAS or TOKEN_ID-BIAS, such as "15043+1"; ignore_eos is a
    bias of -inf on every end token. Both act before all stages of the order.

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
    logit_bias: tuple[str, ...] = ()
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "logit_bias", check_biases(self.logit_bias))
        if not isinstance(self.ignore_eos, bool):
            raise SettingError(f"ignore_eos={self.ignore_eos!r} is neither True nor False")
        object.__setattr__(self, "samplers", check_order(self.samplers))
        object.__setattr__(
            self, "dry_sequence_breakers", check_breakers(self.dry_sequence_breakers)
        )
        for setting in SETTINGS:
            value = check_number(setting, getattr(self, setting.name))
            object.__setattr__(self, setting.name, value)

    def chain(self) -> tuple[str, ...]:
        """The stages that llama.cpp will run, in order, the one that draws last.

        >>> Sampling(mirostat=2).chain()
        ('temperature', 'mirostat_v2')
        """
        first = ("logit_bias",) if self.logit_bias or self.ignore_eos else ()
        if self.mirostat:
            return (*first, "temperature", "mirostat" if self.mirostat == 1 else "mirostat_v2")
        # adaptive_p draws by itself and always runs last, wherever it stands in the list.
        stages = tuple(name for name in self.samplers if name != "adaptive_p")
        return (*first, *stages, "adaptive_p" if "adaptive_p" in self.samplers else "dist")

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
