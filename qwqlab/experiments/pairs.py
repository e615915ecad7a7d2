"""Pairs of runs that show one thing: the same prompt and seed, with a fault and without it."""

from __future__ import annotations

from dataclasses import dataclass

from ..sampling import PRESETS, Request, Run, Sampling
from .metrics import measure
from .penalty_and_order import read_prompts


@dataclass(frozen=True)
class Pair:
    """Two settings for one prompt and one seed, `n_predict` tokens each.

    names:    what the settings are called.
    fault:    "loop" or "code": what the first run has and the second has not.
    look_for: a sentence for the reader.

    The faults were measured on the embedded model, with `experiments.LOADING`.
    """

    name: str
    prompt: str
    seed: int
    samplings: tuple[Sampling, Sampling]
    names: tuple[str, str] = ("A", "B")
    n_predict: int = 400
    fault: str = "loop"
    look_for: str = ""

    def requests(self) -> list[Request]:
        """Return the two runs to ask an engine for."""
        return [
            Request(self.prompt, sampling, self.seed, self.n_predict, name)
            for sampling, name in zip(self.samplings, self.names, strict=True)
        ]


def has_fault(run: Run, fault: str) -> bool:
    """Return whether a run ends in a loop ("loop"), or holds no valid program ("code")."""
    found = measure(run)
    return found.loop if fault == "loop" else not found.valid_code


_OFFICIAL = PRESETS["official"]
_GREEDY = Sampling(temp=0, top_k=0, top_p=1, min_p=0)


def _find(kind: str, word: str) -> str:
    return next(prompt for prompt in read_prompts(kind) if word in prompt)


PAIRS = (
    Pair(
        name="greedy, and greedy with DRY",
        prompt=_find("long", "train journey"),
        seed=1,
        samplings=(_GREEDY, _GREEDY.with_(dry_multiplier=0.8, dry_penalty_last_n=512)),
        names=("greedy", "greedy with DRY"),
        fault="loop",
        look_for="Greedy takes the most likely token each time, and soon the embedded model writes "
        "the same words again and again. DRY pushes down what would continue a repetition, here "
        "of anything in the last 512 tokens.",
    ),
    Pair(
        name="a repeat penalty, and none",
        prompt=_find("code", "is_prime"),
        seed=3,
        samplings=(_OFFICIAL.with_(repeat_penalty=1.5), _OFFICIAL),
        names=("repeat_penalty 1.5", "no penalty"),
        n_predict=240,
        fault="code",
        look_for="A program must repeat its names and its brackets: with the penalty the embedded "
        "model breaks it. Underlined are the tokens that only the penalty let through.",
    ),
    Pair(
        name="the article's two commands",
        prompt=_find("code", "factorial"),
        seed=3,
        samplings=(PRESETS["article_without_fix"], PRESETS["article"]),
        names=("without the fix", "with the fix"),
        n_predict=240,
        fault="code",
        look_for="Both commands ask for a repeat penalty of 1.1, which breaks the embedded model's "
        "program. On the right the list of samplers has no `penalties`: there it does nothing.",
    ),
)
"""The first shows a loop; the others, on the embedded model, a broken program."""
