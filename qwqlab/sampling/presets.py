"""Settings by name, and llama.cpp's own defaults of March 2025, when the article came out.

The same command means something else today. `MARCH_2025` has what a flag that is not given meant
then; `CHANGES` names each change, with the pull request that made it.

>>> today, then = Sampling(), MARCH_2025
>>> today.dry_penalty_last_n, then.dry_penalty_last_n
(64, 16384)
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import SettingError
from .sampling import Sampling
from .settings import DEFAULT_ORDER

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
ARTICLE_CONTEXT = 16_384  # --ctx-size in its commands


@dataclass(frozen=True)
class Change:
    """One thing that llama.cpp does otherwise than in March 2025, by its pull request `pull`."""

    what: str
    then: str
    now: str
    pull: int


CHANGES = (
    Change("--dry-penalty-last-n", "-1, the whole context: 16,384 tokens in the article",
           "64; -1 is refused", 26524),
    Change("--repeat-last-n", "64; -1 was the whole context", "64; -1 is refused", 26524),
    Change("--samplers", "penalties;dry;top_k;typ_p;top_p;min_p;xtc;temperature",
           "with top_n_sigma behind dry, where it is switched off", 13264),
    Change("--top-nsigma", "ran with top_k and temperature alone, whatever the list",
           "a stage like the others", 13264),
    Change("--adaptive-target", "unknown", "read by adaptive_p, a stage that draws", 17927),
    Change("a number that no flag gives", "llama.cpp's default",
           "the GGUF's general.sampling.*, where it has one", 17120),
    Change("llama-cli", "completes a prompt", "a chat program; llama-completion completes", 17824),
)  # fmt: skip
"""That `penalties` runs only where it is listed is older: pull request 10803, December 2024."""

MARCH_2025 = Sampling(
    samplers=tuple(name for name in DEFAULT_ORDER if name != "top_n_sigma"),
    dry_penalty_last_n=ARTICLE_CONTEXT,
)
"""llama.cpp's defaults of March 2025, with the article's context. Its other numbers are today's."""

_ARTICLE = MARCH_2025.with_(
    temp=0.6, top_k=40, top_p=0.95, min_p=0.0, repeat_penalty=1.1, dry_multiplier=0.5
)

PRESETS: dict[str, Sampling] = {
    # Qwen's model card for QwQ-32B: no penalty, min_p 0.
    "official": Sampling(temp=0.6, top_k=40, top_p=0.95, min_p=0.0),
    "llama.cpp": Sampling(),
    # Unsloth's command with the fix: its list has no `penalties`.
    "article": _ARTICLE.with_(samplers=ARTICLE_ORDER),
    # Unsloth's command without the fix, which also sets min_p to 0.1.
    "article_without_fix": _ARTICLE.with_(min_p=0.1),
    # The article's list with `penalties` put back, before `dry` as in llama.cpp's own order.
    "article_with_penalties": _ARTICLE.with_(samplers=ARTICLE_ORDER_WITH_PENALTIES),
}
"""The article's three are as they ran in March 2025."""


def preset(name: str) -> Sampling:
    """Return the `Sampling` of a name: official, llama.cpp, article, article_without_fix or
    article_with_penalties. It states every value, so it means the same with any GGUF."""
    if name not in PRESETS:
        raise SettingError(f"{name!r} is not a preset; choose from {', '.join(PRESETS)}")
    return PRESETS[name]
