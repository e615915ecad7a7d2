"""Every sampler and every number of llama.cpp's chain: names, flags, ranges, and what they mean."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..errors import SettingError
from ..llamacpp import FLOAT_MAX, INT_MAX

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


# llama.cpp keeps room for as many tokens in every chain, whether they come or not.
LAST_N_MAX = 2**20
# llama.cpp divides logits by it: zero and what has no finite inverse are refused there too.
SMALLEST_PENALTY = 1e-38

_BIAS = re.compile(r"\s*(?P<token>\d{1,9})\s*(?P<sign>[+-])\s*(?P<bias>\d*\.?\d+|(?<=-)inf)")

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
    Setting("repeat_last_n", ("--repeat-last-n",), "penalties", int, 0, LAST_N_MAX, None,
            "how many tokens count as recent, the prompt's included"),
    Setting("dry_multiplier", ("--dry-multiplier",), "dry", float, 0, FLOAT_MAX, 0.0,
            "strength of DRY, which penalises continuing a repeated sequence"),
    Setting("dry_base", ("--dry-base",), "dry", float, 1, FLOAT_MAX, None,
            "growth of DRY's penalty with the length of the repetition"),
    Setting("dry_allowed_length", ("--dry-allowed-length",), "dry", int, 0, INT_MAX, None,
            "repetitions up to this length go free"),
    Setting("dry_penalty_last_n", ("--dry-penalty-last-n",), "dry", int, 0, LAST_N_MAX, None,
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
        key = str(name).strip().lower().replace("-", "_")
        stage = ALIASES.get(key) or next(
            (s for s in STAGES if key in (s, s.replace("_", ""))), None
        )
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
    match = _BIAS.fullmatch(text)
    if match is None:
        raise SettingError(f"logit_bias={text!r} is not TOKEN_ID+BIAS or TOKEN_ID-BIAS")
    return int(match["token"]), float(match["sign"] + match["bias"])


def check_texts(name: str, given: Any) -> tuple[str, ...]:
    """Return a list of texts as a tuple; raise SettingError if one is empty or not a text."""
    if not isinstance(given, (list, tuple)) or not all(isinstance(t, str) and t for t in given):
        raise SettingError(f"{name}={given!r} must be a list of strings that are not empty")
    return tuple(given)
