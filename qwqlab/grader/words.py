"""The numbers that a game writes: which of them is the score, and which the best score.

The score is known by what it does, not by its name: it grows when a pipe is passed, and at no other
time. The best score is known by the words beside it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .notes import Tick
from .scene import Text

_BEST = re.compile(
    r"\b(best|high|top|record|max|peak|longest|greatest|personal|champion|all[- ]?time)"
    r"|\b(hi|hs|pb|ever)\b|\bhi[-_ ]?score",
    re.I,
)
_NUMBER = re.compile(r"\d+(?:[,_]\d{3})*")
_NEAR = 6  # pictures by which the score may be early or late, pipe for pipe
_EARLIEST, _LATEST = -60, 90  # pictures: when the score may change, after the bird is past a pipe
_BURST = 10  # pictures: changes that follow each other so closely are one

# What a number is known by from picture to picture: its text without numbers, its place among the
# texts that are alike, and its place in the text.
Slot = tuple[str, int, int]


@dataclass(frozen=True)
class Score:
    """A number that grows with the pipes: where it was last, how often it grew, and by how much.

    passed counts the pipes that were passed while it was watched.
    """

    slot: Slot
    text: Text
    grown: int
    step: int
    passed: int
    is_best: bool

    def read_last(self, ticks: Sequence[Tick]) -> int | None:
        """Return the number that these pictures show last, None if none does."""
        for tick in reversed(ticks):
            for slot, _, value in _list_numbers(tick.texts):
                if slot == self.slot:
                    return value
        return None


def make_pattern(text: Text) -> str:
    """Return a text with # for each number."""
    return _NUMBER.sub("#", text.words)


def find_scores(rounds: Sequence[Sequence[Tick]]) -> list[Score]:
    """Return the numbers that grow as pipes are passed in these rounds, the likeliest first."""
    seen: dict[Slot, list[list[tuple[int, int]]]] = defaultdict(list)
    last: dict[Slot, Text] = {}
    passes = [
        [at for at, (one, next_) in enumerate(pairwise(ticks), 1) if next_.passed > one.passed]
        for ticks in rounds
    ]
    for number, ticks in enumerate(rounds):
        for at, tick in enumerate(ticks):
            for slot, text, value in _list_numbers(tick.texts):
                series = seen[slot]
                while len(series) <= number:
                    series.append([])
                series[number].append((at, value))
                last[slot] = text
    n_ticks = sum(map(len, rounds))
    found = []
    for slot, series in seen.items():
        series += [[]] * (len(rounds) - len(series))
        if sum(map(len, series)) < 0.4 * n_ticks:
            continue
        changes = [_list_changes(each) for each in series]
        steps = [b - a for each in series for (_, a), (_, b) in pairwise(each) if b != a]
        n_changes, n_passes = sum(map(len, changes)), sum(map(len, passes))
        if not n_changes or sum(step < 0 for step in steps) > 0.2 * len(steps):
            continue
        matched, expected = _match(changes, passes, [len(ticks) for ticks in rounds])
        if matched and matched >= 0.6 * expected and matched >= 0.6 * n_changes:
            is_best = bool(_BEST.search(_read_label(last[slot].words, slot[2])))
            score = Score(slot, last[slot], n_changes, max(steps), n_passes, is_best)
            found.append((is_best, -matched, score))
    return [score for *_, score in sorted(found, key=lambda each: each[:2])]


def find_best(texts: Sequence[Text]) -> tuple[str, int] | None:
    """Return the words of a best score and its number, in the same text or beside it.

    >>> find_best([Text(0, 0, 90, 20, "Score: 3  Best: 7")])
    ('Score: 3  Best: 7', 7)
    >>> find_best([Text(0, 0, 90, 20, "BEST"), Text(30, 30, 20, 20, "12")])
    ('BEST 12', 12)
    """
    texts = _join_digits(texts)
    labels = [t for t in texts if not _NUMBER.search(t.words) and re.search(r"\w", t.words)]
    found = []
    for text in texts:
        for at, number in enumerate(_NUMBER.findall(text.words)):
            label = _read_label(text.words, at)
            words = text.words
            if not re.search(r"[^\W\d_]", text.words) and labels:
                label = min(labels, key=lambda each: _measure_distance(each, text)).words
                words = f"{label} {text.words}"
            if _BEST.search(label):
                found.append((words, _read(number)))
    # A line from before the loss may still show the old one.
    return max(found, key=lambda each: each[1], default=None)


def follow_best(
    over: Sequence[Text], over_again: Sequence[Text], first: int, second: int
) -> tuple[str, int] | None:
    """Return a number that is the best of two rounds whatever it is called, and its words.

    first and second are the scores of the rounds; only if the second is less can one be told.
    """
    later = {slot: (text, value) for slot, text, value in _list_numbers(over_again)}
    for slot, text, value in _list_numbers(over):
        if value == first > second and slot in later and later[slot][1] == first:
            return text.words, value
    return None


def _list_numbers(texts: Iterable[Text]) -> Iterator[tuple[Slot, Text, int]]:
    alike: dict[str, int] = defaultdict(int)
    for text in _join_digits(texts):
        pattern = make_pattern(text)
        for at, number in enumerate(_NUMBER.findall(text.words)):
            yield (pattern, alike[pattern], at), text, _read(number)
        alike[pattern] += 1


def _join_digits(texts: Iterable[Text]) -> list[Text]:
    """Return the texts from top to bottom and left to right; digits side by side are one."""
    joined: list[Text] = []
    for text in sorted(texts, key=lambda t: (round(t.y / 8), t.x)):
        last = joined[-1] if joined else text
        gap = text.x - last.right
        digits = last.words.isdecimal() and text.words.isdecimal() and len(text.words) == 1
        if digits and abs(last.y - text.y) < 3 and -3 <= gap <= 0.4 * text.w:
            words = last.words + text.words
            joined[-1] = Text(last.x, last.y, text.right - last.x, last.h, words)
        else:
            joined.append(text)
    return joined


def _read(number: str) -> int:
    return int(re.sub(r"[,_]", "", number)[:15])


def _read_label(words: str, at: int) -> str:
    """Return the words before a text's number, or those behind it if there are none."""
    between = _NUMBER.split(words)
    before, behind = between[at], between[at + 1]
    return before if re.search(r"[^\W\d_]", before) else behind


def _measure_distance(label: Text, number: Text) -> float:
    """Return how far a label is from its number; those above and to the left are nearer."""
    right = max(number.x - label.right, 0.0) + 2 * max(label.x - number.right, 0.0)
    below = max(number.y - label.bottom, 0.0) + 2 * max(label.y - number.bottom, 0.0)
    return right + below


def _list_changes(series: Sequence[tuple[int, int]]) -> list[int]:
    """Return when a number grew; what grows picture after picture grows once."""
    changes: list[int] = []
    last = -_BURST
    for (_, before), (at, after) in pairwise(series):
        if after > before:
            if at - last >= _BURST:
                changes.append(at)
            last = at
    return changes


def _match(
    changes: Sequence[Sequence[int]], passes: Sequence[Sequence[int]], lengths: Sequence[int]
) -> tuple[int, int]:
    """Return how many passes a change belongs to, always at the same distance, and to how many
    one could."""
    both = list(zip(changes, passes, strict=True))
    lags = {change - at for some, others in both for change in some for at in others}
    best = (0, 1)
    for lag in sorted(lags):
        if not _EARLIEST <= lag <= _LATEST:
            continue
        matched = expected = 0
        for some, others, length in zip(changes, passes, lengths, strict=True):
            for at in (p + lag for p in others):
                expected += 0 <= at < length - _NEAR
                matched += any(abs(c - at) <= _NEAR for c in some)
        if matched * best[1] > best[0] * max(expected, 1) or matched > best[0]:
            best = matched, expected
    return best
