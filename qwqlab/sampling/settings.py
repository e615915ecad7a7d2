"""Every sampler and every number of llama.cpp's chain: names, flags, ranges, and what they mean."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import SettingError
from ..llamacpp import FLOAT_MAX, INT_MAX, read_float, read_int

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
STAGES = (*DEFAULT_ORDER, "infill", "adaptive_p")
LETTERS = "edskypmxtia"  # of the same stages, as --sampling-seq takes them
SEED_MAX = 2**32 - 2  # 2**32 - 1 asks llama.cpp for a random seed
# The names that llama.cpp reads, whatever the case: top_k, top-k and topk, and three more.
STAGE_OF_NAME = {
    **{name: s for s in STAGES for name in (s, s.replace("_", "-"), s.replace("_", ""))},
    "nucleus": "top_p",
    "temp": "temperature",
    "typ": "typ_p",
}
STAGE_OF_LETTER = dict(zip(LETTERS, STAGES, strict=True))


@dataclass(frozen=True)
class Setting:
    """One number of the chain.

    stage is the sampler that reads it; neutral is the value at which it does nothing (None: it
    only tunes another setting, and does nothing while that one is neutral). strict: a number
    beyond low and high is refused; of others llama.cpp takes the nearest within them.
    """

    name: str
    flags: tuple[str, ...]
    stage: str
    kind: type
    low: float
    high: float
    neutral: float | None
    meaning: str
    strict: bool = False

    def clip(self, number: float) -> float:
        """Return the number within the range that llama.cpp takes another one for.

        What it would take for no number in the range, such as infinity for temp, stays as it is.
        """
        nearest: float = min(max(number, self.low), self.high)
        if self.strict or number != number or (abs(nearest) == FLOAT_MAX and math.isinf(number)):
            return number
        return int(nearest) if self.kind is int else float(nearest)


# llama.cpp keeps room for as many tokens in every chain, whether they come or not.
LAST_N_MAX = 2**20
# llama.cpp divides logits by it: zero and what has no finite inverse are refused there too.
SMALLEST_PENALTY = 1.2e-38

_BIAS = re.compile(r"(\s*[+-]?\d+)\s*([+-])([^\n]+)", re.A)

SETTINGS = (
    Setting("temp", ("--temp", "--temperature"), "temperature", float, 0, FLOAT_MAX, 1.0,
            "divides every logit; 0 keeps only the most likely token"),
    Setting("dynatemp_range", ("--dynatemp-range",), "temperature", float, 0, FLOAT_MAX, 0.0,
            "how far entropy may move the temperature, down and up"),
    # Below 0 llama.cpp can divide by an entropy of 0, and sort what is no number.
    Setting("dynatemp_exp", ("--dynatemp-exp",), "temperature", float, 0, FLOAT_MAX, None,
            "how entropy maps to temperature", strict=True),
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
            FLOAT_MAX, 1.0, "divides positive logits of recent tokens, multiplies negative ones",
            strict=True),
    Setting("frequency_penalty", ("--frequency-penalty",), "penalties", float, -FLOAT_MAX,
            FLOAT_MAX, 0.0, "subtracted for each recent occurrence of a token", strict=True),
    Setting("presence_penalty", ("--presence-penalty",), "penalties", float, -FLOAT_MAX,
            FLOAT_MAX, 0.0, "subtracted once if a token occurred recently", strict=True),
    Setting("repeat_last_n", ("--repeat-last-n",), "penalties", int, 0, LAST_N_MAX, None,
            "how many tokens count as recent, the prompt's included", strict=True),
    Setting("dry_multiplier", ("--dry-multiplier",), "dry", float, -FLOAT_MAX, FLOAT_MAX, 0.0,
            "strength of DRY, which penalises continuing a repeated sequence"),
    Setting("dry_base", ("--dry-base",), "dry", float, 1, FLOAT_MAX, None,
            "growth of DRY's penalty with the length of the repetition"),
    Setting("dry_allowed_length", ("--dry-allowed-length",), "dry", int, -LAST_N_MAX, INT_MAX, None,
            "repetitions up to this length go free"),
    Setting("dry_penalty_last_n", ("--dry-penalty-last-n",), "dry", int, 0, LAST_N_MAX, None,
            "how many tokens DRY scans", strict=True),
    Setting("mirostat", ("--mirostat",), "mirostat", int, 0, 2, 0,
            "1 or 2: replaces the chain by temperature and Mirostat", strict=True),
    Setting("mirostat_lr", ("--mirostat-lr",), "mirostat", float, -FLOAT_MAX, FLOAT_MAX, None,
            "learning rate eta"),
    Setting("mirostat_ent", ("--mirostat-ent",), "mirostat", float, -FLOAT_MAX, FLOAT_MAX, None,
            "target surprise tau, in bits"),
    Setting("adaptive_target", ("--adaptive-target",), "adaptive_p", float, -1, FLOAT_MAX,
            -1.0, "the probability near which tokens are chosen"),
    Setting("adaptive_decay", ("--adaptive-decay",), "adaptive_p", float, 0, 0.99, None,
            "memory of adaptive_p"),
)  # fmt: skip
BY_NAME = {setting.name: setting for setting in SETTINGS}


def check_seed(seed: int) -> int:
    """Return a seed that llama.cpp takes as it is; 2**32 - 1 and -1 would draw a random one."""
    if not isinstance(seed, int) or not 0 <= seed <= SEED_MAX:
        raise SettingError(f"seed={seed!r} is out of range; give a whole number, 0 to {SEED_MAX}")
    return seed


def check_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return llama.cpp's canonical names of samplers, in the order given.

    Raise SettingError for a name that llama.cpp would skip as unknown, or that is given twice and
    would run twice.

    >>> check_order(["top-k", "nucleus", "temp"])
    ('top_k', 'top_p', 'temperature')
    """
    if isinstance(names, str):
        names = names.split(";") if names else []
    order: list[str] = []
    for name in names:
        stage = STAGE_OF_NAME.get(str(name).strip().lower())
        if stage is None:
            raise SettingError(
                f"{name!r} is not a sampler of llama.cpp; choose from {', '.join(STAGES)}"
            )
        if stage in order:
            raise SettingError(f"{stage!r} is in the order twice; name each sampler once")
        order.append(stage)
    return tuple(order)


def parse_bias(text: str) -> tuple[int, float]:
    """Return token id and bias of a TOKEN_ID(+/-)BIAS, as llama.cpp reads it.

    >>> parse_bias("15043-0.5"), parse_bias("2-inf")
    ((15043, -0.5), (2, -inf))
    """
    match = _BIAS.match(text)
    try:
        if match is None:
            raise ValueError
        token, bias = read_int(match[1])[0], read_float(match[3])[0]
        if abs(token) > INT_MAX or bias != bias:
            raise ValueError
    except (ValueError, OverflowError):
        raise SettingError(f"logit_bias={text!r} is not TOKEN_ID+BIAS or TOKEN_ID-BIAS") from None
    return token, -bias if match[2] == "-" else bias


# The settings that a GGUF can bring, by what llama.cpp calls them after general.sampling.
_OF_A_GGUF = {
    **{name: name for name in ("temp", "top_k", "top_p", "min_p", "mirostat")},
    **{name: name for name in ("xtc_probability", "xtc_threshold")},
    "penalty_last_n": "repeat_last_n",
    "penalty_repeat": "repeat_penalty",
    "mirostat_tau": "mirostat_ent",
    "mirostat_eta": "mirostat_lr",
}


def read_own_settings(texts: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings that a GGUF brings, by their names in Sampling.

    texts: its general.sampling keys, without that prefix, as text (`GGUFInfo.sampling`). As in
    llama.cpp's common_init_sampler_from_model, names and numbers that cannot be read are skipped.

    >>> read_own_settings({"sequence": "top_k;temp; min_p", "top_k": "20", "temp": "0.600000"})
    {'samplers': ('top_k', 'temperature'), 'temp': 0.6, 'top_k': 20}
    """
    found: dict[str, Any] = {}
    if texts.get("sequence"):
        names = [STAGE_OF_NAME.get(name.lower()) for name in texts["sequence"].split(";")]
        found["samplers"] = tuple(name for name in names if name)
    for key, name in _OF_A_GGUF.items():
        setting = BY_NAME[name]
        try:
            number: float
            if setting.kind is int:
                number = (read_int(texts[key])[0] + 2**31) % 2**32 - 2**31  # as C cuts a long
            else:
                number = read_float(texts[key])[0]
        except (KeyError, ValueError):
            continue
        except OverflowError:
            number = float("nan")
        found[name] = max(number, 0) if name == "repeat_last_n" else setting.clip(number)
    return found


def check_texts(name: str, given: Any) -> tuple[str, ...]:
    """Return a list of texts as a tuple; raise SettingError if one is empty or not a text."""
    if not isinstance(given, (list, tuple)) or not all(isinstance(t, str) and t for t in given):
        raise SettingError(f"{name}={given!r} must be a list of strings that are not empty")
    return tuple(given)
