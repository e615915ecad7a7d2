"""Does a run end in a cycle: the same words again and again, exactly or nearly, to its end?

The end of the sequence is laid over itself, shifted back by one period, and compared backwards
from the last element, as a diff would: equal elements score, unequal ones cost, and a gap of a few
elements on either side is bridged (local alignment with an X-drop, Altschul 1990, on one
diagonal). Every shift is tried on the stretch that its first three repetitions would fill, and
those at which most of it agrees are followed. The stretch with the best score is the loop, if it
is long enough and comes back often enough.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

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
# A comparison goes on behind a gap where three elements agree again, or as many as agree by chance
# once in a hundred places.
_GRAM = 3
_CHANCE = 0.01
_MOST_GRAM = 16
_LAGS = 8  # how many shifts are followed
_RECENT = 1 << 14  # elements in which a period is looked for

_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_LETTER = rf"[^\W\d_{_CJK}]"
# Runs of one mark ("-----") are one piece. What is longer than a long word or number has no words
# (Thai, a chain of DNA, bits): each letter or digit is a piece.
_PIECE = re.compile(
    rf"(?<!\d)\d{{1,18}}(?!\d)|\d|(?<!{_LETTER}){_LETTER}{{1,24}}(?!{_LETTER})|{_LETTER}|[{_CJK}]"
    r"|\n{1,16}|_{1,16}|([^\w\s])\1{0,15}"
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

    Random text is no cycle, not even of two different tokens: in none of 5,000 random texts of 60
    to 1,500 tokens was one found. In a text, a number that changes costs twice what a word does.

    Known false positives: data that repeats as loops do, where the run stops inside it (a matrix
    of zeros), and songs that count ("ninety-nine bottles"). Known misses: repetitions that share
    less, counters in lines of one or two words, and cycles that came back once or twice
    when the limit cut them.

    A run of 2,000 tokens takes a few milliseconds. The period is looked for in the last 16,384
    tokens (words and marks of a text): one of more than a third of them is not found.

    >>> find_loop([5, 6] + [1, 2, 3, 4] * 20)
    Loop(start=2, period=4, repeats=20.0, copied=1.0, step=0)
    >>> items = [f"{n}. A day at the sea with all of my friends.\\n" for n in range(20)]
    >>> find_loop("".join(items)).step
    1
    >>> find_loop(list(range(100))) is None
    True
    """
    share = MIN_COPIED if isinstance(sequence, str) else MIN_COPIED_TOKENS
    # Behind a gap every number is named alike, so that a counter does not hide a word.
    if isinstance(sequence, str):
        pieces = [(match.group(), match.start()) for match in _PIECE.finditer(sequence)]
        items: Sequence[str | int] = [piece for piece, _ in pieces]
        starts: Sequence[int] = [start for _, start in pieces]
        numbers = [int(piece) if piece[0].isdecimal() else None for piece, _ in pieces]
        names: Sequence[str | int] = [
            piece if number is None else "0"
            for (piece, _), number in zip(pieces, numbers, strict=True)
        ]
        weights = [1.0 if piece[0].isalnum() else PUNCTUATION_WEIGHT for piece, _ in pieces]
    else:
        items = names = list(sequence)
        starts = range(len(items))
        numbers = [None] * len(items)
        weights = [1.0] * len(items)
    miss, gram = share / (1 - share), _count_gram(items)
    comparison = _Comparison(items, names, numbers, weights, ended, miss, gram)
    found: list[tuple[float, int, Loop]] = []
    followed = 0
    for lag in _rank_lags(items):
        # A multiple of a period whose loop fills its three repetitions shows the same loop.
        reach = len(items) - max(MIN_EXACT[0] * lag, MIN_EXACT[1])
        if any(shorter < lag and loop.start <= reach for _, shorter, loop in found):
            continue
        found.extend((score, lag, loop) for score, loop in comparison.walk(lag))
        followed += 1
        if followed == _LAGS:
            break
    if not found:
        return None
    *_, loop = max(found, key=lambda each: each[0])
    return replace(loop, start=starts[loop.start])


def _rank_lags(items: Sequence[str | int]) -> list[int]:
    """Return the periods that have room for three repetitions, the likeliest first.

    They are ranked by how much of what these would fill equals what is one period before it: all in
    an exact cycle of three repetitions and 60 elements. Of about as much, the shortest comes first.
    """
    repeats, least = MIN_EXACT
    items = items[-_RECENT:]
    n, known = len(items), dict[str | int, int]()
    ids = np.array([known.setdefault(item, len(known)) for item in items], np.int32)
    ranks = []
    for lag in range(1, n // repeats + 1 if n >= least else 1):
        size = max((repeats - 1) * lag, least - lag)
        share = np.count_nonzero(ids[n - size :] == ids[n - size - lag : n - lag]) / size
        ranks.append(-round(share, 1) - (share == 1))
    return [int(place) + 1 for place in np.argsort(ranks, kind="stable")]


def _count_gram(items: Sequence[str | int]) -> int:
    """Return how many elements in a row seldom agree by chance: 3 in prose, 7 of two tokens."""
    counts, n = Counter(items).values(), len(items)
    chance = sum(count * count for count in counts) / max(1, n * n)  # that two are equal
    sizes = range(_GRAM, _MOST_GRAM)
    return next((size for size in sizes if chance**size <= _CHANCE), _MOST_GRAM)


@dataclass(frozen=True)
class _Comparison:
    items: Sequence[str | int]
    names: Sequence[str | int]
    numbers: Sequence[int | None]
    weights: Sequence[float]
    ended: bool
    miss: float
    gram: int

    def walk(self, lag: int) -> list[tuple[float, Loop]]:
        """Return the loops seen at one lag, start an index, each with its score, the best last."""
        items, numbers, weights = self.items, self.numbers, self.weights
        gap, drift = max(3, min(16, lag // 4)), max(3, lag // 6)
        here = len(items) - 1
        there = here - lag
        score = best = copied = changed = 0.0
        pairs = lags = counted = 0
        step: int | None = None
        end: int | None = None
        found: list[tuple[float, Loop]] = []
        while True:
            same, cost = there >= 0 and items[here] == items[there], 1.0
            if not same and score > best:
                assert end is not None
                best, length, share = score, end - there - 1, copied / (copied + changed)
                repeats = round(length * pairs / lags, 1)
                # A number that differed once is no counter.
                steps = step or 0 if counted >= repeats / 2 else 0
                loop = Loop(there + 1, round(lags / pairs), repeats, round(share, 3), steps)
                if _is_long_enough(loop, length):
                    found.append((score, loop))
            # The last number may have been cut within its digits, and shows no step.
            if not same and there >= 0 and end is not None:
                first, second = numbers[there], numbers[here]
                if first is not None and second is not None:
                    if step is None:
                        step = second - first
                    same, cost = second - first == step, IRREGULAR_COST
                    counted += same
            if same:
                end = here + 1 if end is None else end
                score += weights[here]
                copied += weights[here]
                pairs, lags = pairs + 1, lags + here - there
                here, there = here - 1, there - 1
                continue
            limit = 1 if self.ended and end is None else gap
            jump = self._resume(here, there, limit, lag, drift) if there >= 0 else None
            if jump is None:
                return found
            if end is not None:
                changed += max(jump) * cost
                score -= max(jump) * cost * self.miss
                if score < best - self.miss * (gap + 2):
                    return found
            here, there = here - jump[0], there - jump[1]

    def _resume(
        self, here: int, there: int, limit: int, lag: int, drift: int
    ) -> tuple[int, int] | None:
        """Return the least that is skipped on both sides until they agree again."""
        names, last = self.names, self.gram - 1
        for skip, other_skip in _list_skips(limit):
            one, other = here - skip, there - other_skip
            if other < last or one <= other or abs(one - other - lag) > drift:
                continue
            if names[one] == names[other] and all(
                names[one - k] == names[other - k] for k in range(1, self.gram)
            ):
                return skip, other_skip
        return None


@cache
def _list_skips(limit: int) -> list[tuple[int, int]]:
    """Return all pairs up to `limit`, the smallest sum first, of the same sum the most alike."""
    sides = range(limit + 1)
    pairs = [(skip, other) for skip in sides for other in sides if skip or other]
    return sorted(pairs, key=lambda pair: (sum(pair), abs(pair[0] - pair[1])))


def _is_long_enough(loop: Loop, length: int) -> bool:
    if loop.step:
        repeats, elements = MIN_COUNTING
    else:
        repeats, elements = MIN_EXACT if loop.copied >= EXACT else MIN_VARIED
    return loop.repeats >= repeats and length >= elements
