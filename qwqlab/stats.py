"""Counts of yes and no: how sure a rate is, a difference of two rates, and a change in pairs.

Pure functions, for every room: an interval for a rate (`wilson`), for the difference of two rates
from separate runs (`difference`), and for what an override does to the same runs (`Paired`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot, sqrt
from statistics import NormalDist

_Z = NormalDist().inv_cdf(0.975)  # 1.96: how many standard errors a 95 % interval reaches

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


def difference(a: int, n_a: int, b: int, n_b: int) -> tuple[float, float]:
    """Return a 95 % interval for a/n_a - b/n_b, rates of separate runs (Newcombe 1998, method 10).

    >>> low, high = difference(56, 70, 48, 80)
    >>> round(low, 4), round(high, 4)
    (0.0524, 0.3339)
    """
    rate_a, rate_b = a / n_a, b / n_b
    (low_a, high_a), (low_b, high_b) = wilson(a, n_a), wilson(b, n_b)
    gap = rate_a - rate_b
    low = gap - hypot(rate_a - low_a, high_b - rate_b)
    high = gap + hypot(high_a - rate_a, rate_b - low_b)
    return low, high


@dataclass(frozen=True)
class Paired:
    """A yes-or-no count over the same n runs in two arms: how many had it before and after a
    change, and how many lost or gained it by the change."""

    what: str
    n: int
    before: int
    after: int
    lost: int
    gained: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the change of the rate (Agresti and Min 2005: Wald's for paired
        proportions, with half a run added to each of the four cells)."""
        n, lost, gained = self.n + 2, self.lost + 0.5, self.gained + 0.5
        change = (gained - lost) / n
        error = sqrt(max(0.0, lost + gained - n * change * change)) / n
        return max(-1.0, change - _Z * error), min(1.0, change + _Z * error)

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


def pair(what: str, outcomes: Sequence[tuple[bool, bool]]) -> Paired:
    """Return the counts of pairs of (before, after).

    >>> pair("loops", [(True, True), (True, False), (False, False)])
    Paired(what='loops', n=3, before=2, after=1, lost=1, gained=0)
    """
    return Paired(
        what,
        len(outcomes),
        sum(before for before, _ in outcomes),
        sum(after for _, after in outcomes),
        sum(before and not after for before, after in outcomes),
        sum(after and not before for before, after in outcomes),
    )
