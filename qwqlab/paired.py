"""A yes-or-no count in two arms over the same runs, and when it acquits or convicts a change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

HARM = 0.2
"""A change of 20 points in the rate of valid programs, or of loops, is what a culprit must make:
the article's own effect is three times that (see the experiment)."""


@dataclass(frozen=True)
class Paired:
    """A yes-or-no count in two arms over the same runs: how many had it before, with the override,
    and how many lost or gained it."""

    what: str
    n: int
    before: int
    after: int
    lost: int
    gained: int

    @property
    def interval(self) -> tuple[float, float]:
        """A 95 % interval for the change of the rate (Agresti and Min 2005: Wald's for paired
        proportions, with half a run added to each of the four cells)."""
        n, lost, gained = self.n + 2, self.lost + 0.5, self.gained + 0.5
        change = (gained - lost) / n
        error = math.sqrt(max(0.0, lost + gained - n * change * change)) / n
        return max(-1.0, change - 1.96 * error), min(1.0, change + 1.96 * error)

    @property
    def verdict(self) -> str:
        """ "acquitted" where the whole interval lies within HARM, "convicted" where it lies
        beyond 0 on one side, else "undecided": these runs can't tell.

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
    """Count pairs of (before, after).

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
