"""Does a run end in a cycle: the same words again and again, exactly or nearly, to its end?

The end of the sequence is laid over itself, shifted back by one period, and compared backwards
from the last element, as a diff would: equal elements score, unequal ones cost, and a gap of a few
elements on either side is bridged (local alignment with an X-drop, Altschul 1990, on one
diagonal). The shift is found by asking how far back each of the last trigrams occurred before. The
stretch with the best score is the loop, if it is long enough and comes back often enough.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

# The least share of a repetition that must be copied from the one before. Items of real lists,
# tables and tests copy less: their words differ, and words are what is weighed.
# Token ids count brackets and indents like words, and so must copy more.
MIN_COPIED = 0.85
MIN_COPIED_TOKENS = 0.96
EXACT = 0.99
# (repeats, elements) that a loop must reach: exact, with changes, with a number that counts.
MIN_EXACT = (3, 60)
MIN_VARIED = (4, 120)
MIN_COUNTING = (6, 120)

PUNCTUATION_WEIGHT = 0.3
# A number that neither stays nor counts is information: a table, a test. It costs twice.
IRREGULAR_COST = 2.0
_GRAM = 3
_RECENT = 512
_LAGS = 8

_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
# Runs of one mark ("-----") are one piece, and nothing is longer than a long word.
_PIECE = re.compile(
    rf"\d{{1,18}}|[{_CJK}]|[^\W\d_{_CJK}]{{1,24}}|\n{{1,16}}|_{{1,16}}|([^\w\s])\1{{0,15}}"
)


@dataclass(frozen=True)
class Loop:
    """A cycle at the end of a run.

    start:   where the cycle begins: the index of its first token, or its first character in a text.
    period:  length of one repetition, in tokens (in words and marks of a text), on average.
    repeats: how often it comes, the first time included.
    copied:  share of the repetitions that equals the one before; 1.0 is an exact cycle.
    step:    by how much a number counts up (or down) from one repetition to the next; 0: none.
    """

    start: int
    period: int
    repeats: float
    copied: float
    step: int = 0


def find_loop(sequence: str | Sequence[int], *, ended: bool = False) -> Loop | None:
    """Return the cycle in which a run ends, or None.

    Give token ids, or a text, in which numbers that count ("11. ... 12. ...") are recognised as
    such and words weigh more than punctuation. A cycle is, at the very end of the sequence:

    - exact (at least 99 % copied): 3 repetitions and 60 tokens or more;
    - with changes (at least 85 % of a text copied, 96 % of tokens, and no gap of more than a
      quarter of the period or 16): 4 repetitions and 120 tokens or more. In a text one number may
      count by a fixed step; then 6 repetitions.

    `ended` says that the model ended the run itself: then nothing but the end token may follow
    the cycle, and a table with its closing bracket is none. Otherwise the run was cut somewhere
    inside a repetition, which may just differ there. A run that repeats and then goes on with
    something else does not end in a cycle.

    Known false positives: data that repeats as loops do, where the run stops inside it (a matrix
    of zeros), and songs that count ("ninety-nine bottles"). Known misses: repetitions that share
    less, counters in lines of one or two words, and cycles that came back once or twice
    when the limit cut them.

    A run of 2,000 tokens takes a few milliseconds.

    >>> find_loop([5, 6] + [1, 2, 3, 4] * 20)
    Loop(start=2, period=4, repeats=20.0, copied=1.0, step=0)
    >>> items = [f"{n}. A day at the sea with all of my friends.\\n" for n in range(20)]
    >>> find_loop("".join(items)).step
    1
    >>> find_loop(list(range(100))) is None
    True
    """
    share = MIN_COPIED if isinstance(sequence, str) else MIN_COPIED_TOKENS
    # Trigrams name every number alike, so that a counter does not hide the period.
    if isinstance(sequence, str):
        found = [(match.group(), match.start()) for match in _PIECE.finditer(sequence)]
        items: Sequence[str | int] = [piece for piece, _ in found]
        starts: Sequence[int] = [start for _, start in found]
        numbers = [int(piece) if piece[0].isdecimal() else None for piece, _ in found]
        names: Sequence[str | int] = [
            piece if number is None else "0"
            for (piece, _), number in zip(found, numbers, strict=True)
        ]
        weights = [1.0 if piece[0].isalnum() else PUNCTUATION_WEIGHT for piece, _ in found]
    else:
        items = names = list(sequence)
        starts = range(len(items))
        numbers = [None] * len(items)
        weights = [1.0] * len(items)
    comparison = _Comparison(items, names, numbers, weights, ended, share / (1 - share))
    loops = [comparison.walk(lag) for lag in _find_lags(names)]
    best = max((loop for loop in loops if loop), key=lambda each: each[0], default=None)
    if best is None or not _is_long_enough(best[1], best[2]):
        return None
    loop = best[1]
    return Loop(starts[loop.start], loop.period, loop.repeats, loop.copied, loop.step)


def _is_long_enough(loop: Loop, length: int) -> bool:
    if loop.step:
        repeats, elements = MIN_COUNTING
    else:
        repeats, elements = MIN_EXACT if loop.copied >= EXACT else MIN_VARIED
    return loop.repeats >= repeats and length >= elements


def _find_lags(names: Sequence[str | int]) -> list[int]:
    """Return the likeliest periods: how far back most of the last trigrams occurred before."""
    seen: dict[tuple[str | int, ...], int] = {}
    votes: Counter[int] = Counter()
    recent = len(names) - _GRAM - _RECENT
    for at, gram in enumerate(zip(names, names[1:], names[2:], strict=False)):
        if at >= recent and gram in seen:
            votes[at - seen[gram]] += 1
        seen[gram] = at
    return [lag for lag, _ in votes.most_common(_LAGS)]


@dataclass(frozen=True)
class _Comparison:
    items: Sequence[str | int]
    names: Sequence[str | int]
    numbers: Sequence[int | None]
    weights: Sequence[float]
    ended: bool
    miss: float

    def walk(self, lag: int) -> tuple[float, Loop, int] | None:
        """Return the best stretch at one lag: its score, the loop (start an index), its length."""
        items, numbers = self.items, self.numbers
        gap, drift = max(3, min(16, lag // 4)), max(3, lag // 6)
        here = len(items) - 1
        there = here - lag
        score = best = copied = changed = 0.0
        pairs = lags = counted = 0
        step: int | None = None
        end: int | None = None
        found: tuple[float, Loop, int] | None = None
        while there >= 0:
            same, cost = items[here] == items[there], 1.0
            first, second = numbers[there], numbers[here]
            # The last number may have been cut within its digits, and shows no step.
            if not same and end is not None and first is not None and second is not None:
                if step is None:
                    step = second - first
                same, cost = second - first == step, IRREGULAR_COST
                counted += same
            if same:
                end = here + 1 if end is None else end
                score += self.weights[here]
                copied += self.weights[here]
                pairs, lags = pairs + 1, lags + here - there
                if score > best:
                    best, length = score, end - there
                    period, share = lags / pairs, copied / (copied + changed)
                    repeats = round(length / period, 1)
                    # A number that differed once is no counter.
                    steps = step or 0 if counted >= repeats / 2 else 0
                    loop = Loop(there, round(period), repeats, round(share, 3), steps)
                    found = (score, loop, length)
                here, there = here - 1, there - 1
                continue
            jump = self._resume(here, there, 1 if self.ended and end is None else gap, lag, drift)
            if jump is None:
                break
            if end is not None:
                changed += max(jump) * cost
                score -= max(jump) * cost * self.miss
                if score < best - self.miss * (gap + 2):
                    break
            here, there = here - jump[0], there - jump[1]
        return found

    def _resume(
        self, here: int, there: int, limit: int, lag: int, drift: int
    ) -> tuple[int, int] | None:
        """Return the smallest pair of skips after which three elements agree again."""
        names = self.names
        for total in range(1, 2 * limit + 1):
            for skip in range(max(0, total - limit), min(limit, total) + 1):
                one, other = here - skip, there - (total - skip)
                if other < 2 or one <= other or abs(one - other - lag) > drift:
                    continue
                if names[one] == names[other] and all(
                    names[one - k] == names[other - k] for k in range(1, _GRAM)
                ):
                    return skip, total - skip
        return None
