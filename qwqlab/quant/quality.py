"""How near a variant's predictions stay to a reference's: the numbers and their intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ..errors import SettingError

Interval = tuple[float, float]


@dataclass(frozen=True)
class Quality:
    """A variant's predictions against the reference's, each with its 95 % interval over blocks.

    perplexity:      exp of the mean surprise of a token.
    kl_mean, kl_p99: the Kullback-Leibler divergence from the reference in nats a token: mean, and
                     what 99 of 100 tokens stay below.
    top1_agreement:  share of tokens whose most likely next token is the reference's.
    block_surprise, block_kl: the means of each block, for comparing variants block by block.
    """

    perplexity: float
    perplexity_interval: Interval
    kl_mean: float
    kl_mean_interval: Interval
    kl_p99: float
    kl_p99_interval: Interval
    top1_agreement: float
    top1_agreement_interval: Interval
    n_tokens: int
    block_surprise: tuple[float, ...]
    block_kl: tuple[float, ...]

    @property
    def n_blocks(self) -> int:
        return len(self.block_kl)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values, `n_blocks` among them."""
        return {**asdict(self), "n_blocks": self.n_blocks}


def scored_places(n_ctx: int) -> torch.Tensor:
    """The places in a block whose next token is scored, as in llama-perplexity.

    >>> scored_places(8)
    tensor([4, 5, 6])
    """
    return torch.arange(n_ctx // 2, n_ctx - 1)


def score_block(
    block: torch.Tensor, reference: torch.Tensor, variant: torch.Tensor
) -> torch.Tensor:
    """Surprise, KL divergence and agreement of each scored token: 3 x n_scored, float64."""
    follows = block[scored_places(len(block)) + 1]
    surprise = -variant.gather(1, follows[:, None])[:, 0]
    divergence = (reference.exp() * (reference - variant)).sum(1, dtype=torch.float64)
    same = reference.argmax(1) == variant.argmax(1)
    return torch.stack([surprise.double(), divergence.clamp(min=0), same.double()])


def sum_up(scored: Sequence[torch.Tensor]) -> Quality:
    statistics: dict[str, Callable[[torch.Tensor], float]] = {
        "perplexity": lambda each: math.exp(float(each[0].mean())),
        "kl_mean": lambda each: float(each[1].mean()),
        "kl_p99": lambda each: float(each[1].quantile(0.99)),
        "top1_agreement": lambda each: float(each[2].mean()),
    }
    found: dict[str, Any] = {}
    for name, statistic in statistics.items():
        found[name], found[f"{name}_interval"] = jackknife(scored, statistic)
    return Quality(
        **found,
        n_tokens=sum(each.shape[1] for each in scored),
        block_surprise=tuple(float(each[0].mean()) for each in scored),
        block_kl=tuple(float(each[1].mean()) for each in scored),
    )


def jackknife(
    blocks: Sequence[torch.Tensor], statistic: Callable[[torch.Tensor], float]
) -> tuple[float, Interval]:
    """A statistic of all blocks and its 95 % interval, from leaving out one block at a time.

    Tokens of one block depend on each other, blocks hardly do, so the blocks are what is counted:
    Student's t with one degree of freedom less than there are blocks (Efron and Tibshirani 1993,
    chapter 11). The interval stays within the range of a share or of a divergence.
    """
    from scipy.stats import t

    n = len(blocks)
    value = statistic(torch.cat(list(blocks), 1))
    without = [
        statistic(torch.cat([*blocks[:place], *blocks[place + 1 :]], 1)) for place in range(n)
    ]
    mean = sum(without) / n
    error = math.sqrt((n - 1) / n * sum((each - mean) ** 2 for each in without))
    half = float(t.ppf(0.975, n - 1)) * error
    return value, (max(0.0, value - half), value + half)


def compare_blocks(first: Quality, second: Quality) -> tuple[float, Interval]:
    """By how much the first variant's mean KL is above the second's, with its 95 % interval.

    Block by block: that a block is hard for both cancels.
    """
    from scipy.stats import t

    if first.n_blocks != second.n_blocks:
        raise SettingError("the two variants were measured on different texts")
    pairs = zip(first.block_kl, second.block_kl, strict=True)
    differences = [torch.tensor([mine - other]) for mine, other in pairs]
    values = torch.cat(differences).double()
    half = float(t.ppf(0.975, len(values) - 1) * values.std() / math.sqrt(len(values)))
    mean = float(values.mean())
    return mean, (mean - half, mean + half)
