"""Counts of yes and no: how sure a rate is, and a change of it in pairs.

Pure functions, for every room. Runs of one prompt are alike, so what 48 runs of 12 prompts tell is
less than what 48 prompts would. `resample` draws whole prompts (a cluster bootstrap, Davison and
Hinkley 1997), and an interval is the wider of that and the formula for separate runs: a sample
without a single event says nothing about how rare it is, and there the formula does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

_Z = NormalDist().inv_cdf(0.975)  # 1.96: how many standard errors a 95 % interval reaches
_DRAWS = 2000

HARM = 0.2
"""The least change of a rate that makes a culprit, 20 points: a third of the article's own effect
on valid programs (see `experiments`)."""


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Return the 95 % score interval of a rate (Wilson 1927, no continuity correction).

    It is (0.0, 1.0) for n = 0. Raise ValueError for counts that can't be.

    >>> [round(bound, 3) for bound in wilson(2, 20)]
    [0.028, 0.301]
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} can't be a count: give 0 <= successes <= n.")
    if n == 0:
        return 0.0, 1.0
    rate = successes / n
    centre = rate + _Z * _Z / (2 * n)
    spread = _Z * sqrt(rate * (1 - rate) / n + _Z * _Z / (4 * n * n))
    scale = 1 + _Z * _Z / n
    # At the ends the bound is exact; floats would miss it by a rounding.
    low = 0.0 if successes == 0 else (centre - spread) / scale
    high = 1.0 if successes == n else (centre + spread) / scale
    return low, high


def resample(values: Sequence[float], groups: Sequence[int]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of values when whole groups are drawn anew.

    groups: of each value its group, a prompt. The draws are the same each time.

    >>> alike = [1, 1, 1, 1, 0, 0, 0, 0]
    >>> resample(alike, [0, 0, 0, 0, 1, 1, 1, 1]), resample(alike, range(8))[0] > 0.1
    ((0.0, 1.0), True)
    """
    import numpy as np
    from scipy.stats import bootstrap

    names, places = np.unique(groups, return_inverse=True)
    sums = np.bincount(places, np.asarray(values, float), len(names))
    sizes = np.bincount(places, minlength=len(names))
    if len(names) == 1 or np.ptp(sums / sizes) == 0:
        return (float(sums.sum() / sizes.sum()),) * 2  # scipy would warn of it
    found = bootstrap(
        (sums, sizes),
        lambda sums, sizes, axis: sums.sum(axis) / sizes.sum(axis),
        n_resamples=_DRAWS,
        paired=True,
        method="percentile",
        random_state=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


@dataclass(frozen=True)
class Rate:
    """How many of n runs had something, and the 95 % interval of that rate, as fractions."""

    count: int
    n: int
    interval: tuple[float, float]

    @property
    def share(self) -> float:
        """The rate itself; 0.0 of no runs."""
        return self.count / self.n if self.n else 0.0


def rate(outcomes: Sequence[bool], groups: Sequence[int]) -> Rate:
    """Return the rate of some outcomes; groups has the prompt of each.

    >>> rate([False] * 20, range(20)).interval == wilson(0, 20)
    True
    """
    count, n = sum(outcomes), len(outcomes)
    low, high = wilson(count, n)
    drawn = resample(outcomes, groups) if n else (low, high)
    return Rate(count, n, (min(low, drawn[0]), max(high, drawn[1])))


@dataclass(frozen=True)
class Paired:
    """A yes-or-no count over the same n runs in two arms, with the same prompts and seeds.

    before, after: how many had it; lost, gained: how many by the change. drawn: the interval of the
    change when whole prompts are drawn anew.
    """

    what: str
    n: int
    before: int
    after: int
    lost: int
    gained: int
    drawn: tuple[float, float] | None = None

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the change of the rate: the wider of `drawn` and a formula.

        The formula is Agresti and Min's (2005): Wald's for paired proportions, with half a run
        added to each of the four cells.
        """
        n, lost, gained = self.n + 2, self.lost + 0.5, self.gained + 0.5
        change = (gained - lost) / n
        error = sqrt(max(0.0, lost + gained - n * change * change)) / n
        low, high = max(-1.0, change - _Z * error), min(1.0, change + _Z * error)
        drawn = self.drawn or (low, high)
        return min(low, drawn[0]), max(high, drawn[1])

    @property
    def verdict(self) -> str:
        """ "acquitted" if the whole interval is within HARM, "convicted" if 0 is outside it, else
        "undecided": these runs can't tell.

        >>> Paired("valid code", 48, 30, 30, 1, 1).verdict
        'acquitted'
        >>> Paired("valid code", 48, 30, 5, 25, 0).verdict
        'convicted'
        >>> Paired("valid code", 6, 3, 3, 1, 1).verdict
        'undecided'
        """
        low, high = self.interval
        if low > -HARM and high < HARM:
            return "acquitted"
        return "convicted" if low > 0 or high < 0 else "undecided"


def pair(
    what: str, outcomes: Sequence[tuple[bool, bool]], groups: Sequence[int] | None = None
) -> Paired:
    """Return the counts of pairs of (before, after); groups has the prompt of each pair.

    Without groups each pair is a prompt of its own.

    >>> found = pair("loops", [(True, True), (True, False), (False, False)])
    >>> found.before, found.after, found.lost, found.gained
    (2, 1, 1, 0)
    """
    steps = [after - before for before, after in outcomes]
    return Paired(
        what,
        len(outcomes),
        sum(before for before, _ in outcomes),
        sum(after for _, after in outcomes),
        steps.count(-1),
        steps.count(1),
        resample(steps, range(len(steps)) if groups is None else groups) if steps else None,
    )
