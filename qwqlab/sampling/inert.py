"""Which settings of a Sampling have no effect, and why.

llama.cpp says nothing when a flag does nothing. That silence is how a widely copied fix came to
switch the repeat penalty off while its reader went on tuning it; so the lab says it.
"""

from __future__ import annotations

from collections.abc import Callable

from .sampling import Sampling
from .settings import BY_NAME, SETTINGS, Setting

# Stages that can change which candidate is the most likely one.
MOVERS = ("penalties", "dry", "typ_p", "xtc", "infill")
# Stages that only drop candidates, and never the most likely one.
TRUNCATIONS = ("top_k", "top_p", "min_p", "top_n_sigma")


def explain(sampling: Sampling) -> tuple[str, ...]:
    """A sentence for every setting that cannot change the tokens of a run.

    A setting at its neutral value (repeat_penalty=1) is off by choice and is not listed; neither
    is a tuning number at llama.cpp's default. Each sentence is tested: taking the setting back to
    neutral leaves a run's tokens as they were.
    """
    return tuple(
        f"{name}={getattr(sampling, name):g} has no effect: {why}"
        for name, why in find_inert(sampling).items()
    )


def find_inert(sampling: Sampling) -> dict[str, str]:
    """The same as the setting's name and the reason."""
    reason = _mirostat_reason if sampling.mirostat else _chain_reason(sampling)
    found = {
        setting.name: reason(sampling, setting)
        for setting in SETTINGS
        if _is_set(sampling, setting)
    }
    return {name: why for name, why in found.items() if why}


def is_neutral(sampling: Sampling, setting: Setting) -> bool:
    """Whether a setting stands at the value at which its stage does nothing."""
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


_DEFAULTS = Sampling()
Reason = Callable[[Sampling, Setting], str]


def _mirostat_reason(sampling: Sampling, setting: Setting) -> str:
    if setting.stage == "mirostat" or setting.name == "temp":
        return ""
    return f"mirostat {sampling.mirostat} replaces the chain, and reads only the temperature"


def _chain_reason(sampling: Sampling) -> Reason:
    shadows = _shadows(sampling)

    def reason(sampling: Sampling, setting: Setting) -> str:
        if setting.stage == "mirostat":
            return "mirostat is 0"
        if setting.stage not in sampling.samplers:
            return f"`{setting.stage}` is not in the order"
        if off := _switched_off(sampling, setting):
            return off
        return shadows.get(setting.stage, "")

    return reason


def _switched_off(sampling: Sampling, setting: Setting) -> str:
    mains = [s for s in SETTINGS if s.stage == setting.stage and s.neutral is not None]
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


def _shadows(sampling: Sampling) -> dict[str, str]:
    """Stages made pointless by a stage that leaves one candidate, each with the reason."""
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
    mains = [s for s in SETTINGS if s.stage == stage and s.neutral is not None]
    if not mains:
        return True
    return any(not is_neutral(sampling, m) and not _switched_off(sampling, m) for m in mains)
