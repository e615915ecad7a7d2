"""Sampling: every number and the order of llama.cpp's samplers, under llama.cpp's own names.

A `Sampling` is a value: it is checked when it is made and never changes. Its defaults are
llama.cpp's. Each setting's stage, flags and range are a row of `settings`, which flags, widgets
and warnings read.

llama.cpp logs its chain with a `?` before each stage that is switched off, and says nothing of a
stage that the list lacks. So a widely copied fix switched the repeat penalty off, and its readers
went on tuning it. Here we tell them:

>>> Sampling(samplers=("top_p", "min_p", "top_k", "temperature"), repeat_penalty=1.1).inert()[0]
'repeat_penalty=1.1 has no effect: `penalties` is not in the order'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ..errors import SettingError
from ..llamacpp import check_number
from .settings import (
    BY_NAME,
    DEFAULT_ORDER,
    SETTINGS,
    Setting,
    check_order,
    check_texts,
    parse_bias,
)


@dataclass(frozen=True)
class Sampling:
    """The numbers and the order of one run. Raise SettingError for what llama.cpp can't use.

    It states every value, so nothing that a GGUF brings (general.sampling.*) counts beside it:
    `Engine.sampling` has these, to change with `with_`.

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
        object.__setattr__(self, "samplers", check_order(self.samplers))
        for name in ("logit_bias", "dry_sequence_breakers"):
            object.__setattr__(self, name, check_texts(name, getattr(self, name)))
        for bias in self.logit_bias:
            parse_bias(bias)
        for setting in SETTINGS:
            given = getattr(self, setting.name)
            value = check_number(setting.name, given, setting.kind, setting.low, setting.high)
            object.__setattr__(self, setting.name, value)

    def chain(self) -> tuple[str, ...]:
        """Return the stages that llama.cpp will run, in order, the one that draws last.

        >>> Sampling(mirostat=2).chain()
        ('temperature', 'mirostat_v2')
        """
        first = ("logit_bias",) if self.logit_bias or self.ignore_eos else ()
        if self.mirostat:
            return (*first, "temperature", "mirostat" if self.mirostat == 1 else "mirostat_v2")
        # adaptive_p draws by itself and always runs last, wherever it is in the list.
        stages = tuple(name for name in self.samplers if name != "adaptive_p")
        return (*first, *stages, "adaptive_p" if "adaptive_p" in self.samplers else "dist")

    def inert(self, n_vocab: int | None = None) -> tuple[str, ...]:
        """Return a sentence for every setting that can't change the tokens of a run, with the why.

        n_vocab: the tokens of a model, to find the biases that are on none of them.

        A setting at its neutral value (repeat_penalty=1) is off by choice and is not listed;
        neither is a tuning number at llama.cpp's default. The tests check each kind of sentence:
        taking the setting back to neutral leaves a run's tokens as they were.
        """
        found = [
            f"{name}={getattr(self, name):g} has no effect: {why}"
            for name, why in find_inert(self).items()
        ]
        for bias in self.logit_bias:
            if n_vocab is not None and not 0 <= parse_bias(bias)[0] < n_vocab:
                why = f"the model's tokens have the ids 0 to {n_vocab - 1}"
                found.append(f"logit_bias={bias} has no effect: {why}")
        return tuple(found)

    def with_(self, **changes: Any) -> Sampling:
        """Return a copy with some settings changed; raise SettingError for an unknown name."""
        known = {item.name for item in fields(self)}
        for name in changes:
            if name not in known:
                raise SettingError(f"{name!r} is not a sampling setting; they are {sorted(known)}")
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values; `from_dict` is the inverse."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Sampling:
        """Return the Sampling that `to_dict` described."""
        return cls().with_(**values)


def add_own(
    base: Sampling, own: Mapping[str, Any], given: Mapping[str, Any] | None = None
) -> Sampling:
    """Return base with what a GGUF brings (`read_own_settings`), and over that what is given."""
    given = given or {}
    sampling = base.with_(**given)
    try:
        return sampling.with_(**{name: own[name] for name in own if name not in given})
    except SettingError as error:
        raise SettingError(f"the GGUF brings a setting that llama.cpp refuses: {error}") from None


# Stages that can change which candidate is the most likely one.
MOVERS = ("penalties", "dry", "typ_p", "xtc", "infill")
# Stages that only drop candidates, and never the most likely one.
TRUNCATIONS = ("top_k", "top_p", "min_p", "top_n_sigma")


def find_inert(sampling: Sampling) -> dict[str, str]:
    """Return the names of the settings that have no effect, each with the reason."""
    shadows = _find_shadows(sampling)
    found = {
        setting.name: _explain(sampling, setting, shadows)
        for setting in SETTINGS
        if _is_set(sampling, setting)
    }
    return {name: why for name, why in found.items() if why}


def is_neutral(sampling: Sampling, setting: Setting) -> bool:
    """Return whether a setting is at the value at which its stage does nothing."""
    value: float = getattr(sampling, setting.name)
    if setting.neutral is None:
        return False
    if setting.name in ("top_k", "top_n_sigma"):
        return value <= 0
    if setting.name == "adaptive_target":
        return value < 0
    return value == setting.neutral


def _is_set(sampling: Sampling, setting: Setting) -> bool:
    if setting.neutral is None:
        return bool(getattr(sampling, setting.name) != getattr(_DEFAULTS, setting.name))
    return not is_neutral(sampling, setting)


def _explain(sampling: Sampling, setting: Setting, shadows: dict[str, str]) -> str:
    if sampling.mirostat:
        if setting.stage == "mirostat" or setting.name == "temp":
            return ""
        return f"mirostat {sampling.mirostat} replaces the chain, and reads only the temperature"
    if setting.stage == "mirostat":
        return "mirostat is 0"
    if setting.stage not in sampling.samplers:
        return f"`{setting.stage}` is not in the order"
    return _switched_off(sampling, setting) or shadows.get(setting.stage, "")


def _find_mains(stage: str) -> list[Setting]:
    """Find the numbers of a stage that switch it off at their neutral value."""
    return [s for s in SETTINGS if s.stage == stage and s.neutral is not None]


def _switched_off(sampling: Sampling, setting: Setting) -> str:
    mains = _find_mains(setting.stage)
    if setting.name == "dynatemp_exp":
        mains = [BY_NAME["dynatemp_range"]]
    if setting.neutral is None and all(is_neutral(sampling, main) for main in mains):
        return " and ".join(f"{m.name} is {getattr(sampling, m.name):g}" for m in mains)
    if setting.stage == "penalties" and setting.name != "repeat_last_n":
        return "repeat_last_n is 0" if sampling.repeat_last_n == 0 else ""
    if setting.stage == "dry" and setting.name != "dry_penalty_last_n":
        return "dry_penalty_last_n is 0" if sampling.dry_penalty_last_n == 0 else ""
    if setting.stage == "xtc" and setting.name == "xtc_probability":
        return "xtc_threshold is above 0.5" if sampling.xtc_threshold > 0.5 else ""
    return ""


def _find_shadows(sampling: Sampling) -> dict[str, str]:
    """Find the stages made pointless by one that leaves a single candidate, and say why."""
    single = next((i for i, s in enumerate(sampling.samplers) if _leaves_one(sampling, s)), None)
    if single is None:
        return {}
    stage = sampling.samplers[single]
    what = "temp is 0" if stage == "temperature" else "top_k is 1"
    # adaptive_p draws from what is left by its own rule, so it is never shadowed.
    later = [s for s in sampling.samplers[single + 1 :] if s != "adaptive_p"]
    shadows = dict.fromkeys(later, f"{what}, and `{stage}` before it leaves one candidate")
    for earlier in reversed(sampling.samplers[:single]):
        if earlier in MOVERS and _acts(sampling, earlier):
            break
        if earlier in TRUNCATIONS or earlier == "temperature":
            shadows[earlier] = f"{what}: only the most likely candidate survives `{stage}`"
    return shadows


def _leaves_one(sampling: Sampling, stage: str) -> bool:
    if stage == "temperature":
        return sampling.temp == 0 and sampling.dynatemp_range == 0
    return stage == "top_k" and sampling.top_k == 1


def _acts(sampling: Sampling, stage: str) -> bool:
    mains = _find_mains(stage)
    return not mains or any(
        not is_neutral(sampling, m) and not _switched_off(sampling, m) for m in mains
    )


_DEFAULTS = Sampling()
