"""A trained model tried: how often its answers are right, and how often they end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engine import Engine
from ..metrics import wilson
from ..native import Matrix
from ..records import Request
from ..sampling import Sampling
from .examples import Example
from .skill import score

N_PREDICT = 64
GREEDY = Sampling(temp=0.0)
# The model's own distribution, nothing cut off it.
PLAIN = Sampling(temp=1.0, top_k=0, top_p=1.0, min_p=0.0)


@dataclass(frozen=True)
class SkillCount:
    """Answers to n prompts, greedy: how many are JSON, and how many the right one."""

    n: int
    json: int
    right: int
    answers: tuple[str, ...]

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval for the share of right answers."""
        return wilson(self.right, self.n)


@dataclass(frozen=True)
class StopCount:
    """How a model stops.

    p_stop:  the probability of the end token, for each prompt with its right answer behind it.
    stopped: how many of n answers, drawn from the model's own distribution, end by themselves
             within the tokens that they were given.
    """

    p_stop: tuple[float, ...]
    n: int
    stopped: int

    @property
    def mean_p_stop(self) -> float:
        return sum(self.p_stop) / len(self.p_stop)

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval for the share that ends."""
        return wilson(self.stopped, self.n)


def measure_skill(engine: Engine, examples: Sequence[Example]) -> SkillCount:
    """Answer each example's prompt, and score it."""
    requests = [Request(example.prompt, GREEDY, 0, N_PREDICT) for example in examples]
    runs = dict(engine.run(requests))
    answers = tuple(runs[place].text for place in range(len(examples)))
    scores = [score(answer, each) for answer, each in zip(answers, examples, strict=True)]
    return SkillCount(
        n=len(examples),
        json=sum(each.is_json for each in scores),
        right=sum(each.is_right for each in scores),
        answers=answers,
    )


def measure_stopping(
    engine: Engine, examples: Sequence[Example], n_seeds: int = 3, n_predict: int = N_PREDICT
) -> StopCount:
    """How sure the model is that a right answer is over, and how often its own answers end."""
    known: dict[int, Matrix] = {}
    whole = [Request(each.prompt + each.output, GREEDY, 0, 1) for each in examples]
    list(engine.run(whole, keep_logits=known))
    drawn = [
        Request(example.prompt, PLAIN, seed, n_predict)
        for example in examples
        for seed in range(n_seeds)
    ]
    ended = [run.stop == "end" for _, run in engine.run(drawn)]
    ends = list(engine.model.end_tokens)
    return StopCount(
        p_stop=tuple(_share(known[place][0], ends) for place in range(len(examples))),
        n=len(ended),
        stopped=sum(ended),
    )


def _share(logits: Any, tokens: Sequence[int]) -> float:
    """What these tokens have of the distribution."""
    odds = np.exp(logits.astype(np.float64) - float(logits.max()))
    return float(odds[tokens].sum() / odds.sum())
