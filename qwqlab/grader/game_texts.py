"""Scores and other words on a game's screen."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from .game_record import GameRecord, Tick
from .scene import Mark

_BEST = re.compile(r"best|high|record|top", re.I)
_BEST_NUMBER = re.compile(r"(?:best|high|record|top)\D*(\d{1,9})", re.I)
_NUMBER = re.compile(r"\d+")


def find_growing(ticks: Sequence[Tick]) -> Iterable[tuple[Mark, int]]:
    """The texts of the last picture whose number is larger than it was in the first."""
    before = {make_pattern(t): _last_number(t) for t in reversed(ticks[0].texts)}
    for text in ticks[-1].texts:
        if (number := _last_number(text)) is None:
            continue
        earlier = before.get(make_pattern(text))
        if earlier is not None and number > earlier:
            yield text, earlier


def find_score(ticks: Sequence[Tick]) -> int | None:
    """The number that grew in these pictures, as the last of them shows it; None if none did."""
    grown = [_last_number(text) for text, _ in find_growing(ticks)] if ticks else []
    return min((number for number in grown if number is not None), default=None)


def make_pattern(text: Mark) -> str:
    return _NUMBER.sub("#", text.detail)


def _last_number(text: Mark) -> int | None:
    numbers = _NUMBER.findall(text.detail)
    return int(numbers[-1][:9]) if numbers else None


def is_top_right(text: Mark, size: tuple[int, int]) -> bool:
    """Whether a text stands whole in the upper right part of the screen."""
    middle = text.x + text.w / 2
    return is_inside(text, size) and middle > 0.55 * size[0] and text.bottom < 0.3 * size[1]


def is_inside(text: Mark, size: tuple[int, int]) -> bool:
    """Whether all of it is on the screen."""
    return text.x >= 0 and text.y >= 0 and text.right <= size[0] and text.bottom <= size[1]


def find_best(tick: Tick) -> tuple[str, int] | None:
    """The text that shows a best score, and the score: in the same text, or beside it."""
    for text in tick.texts:
        if found := _BEST_NUMBER.search(text.detail):
            return text.detail, int(found[1])
    for text in (t for t in tick.texts if _BEST.search(t.detail)):
        for other in tick.texts:
            if other.detail.strip().isdecimal() and abs(other.y - text.y) < max(10, text.h):
                return f"{text.detail} {other.detail}", int(other.detail.strip()[:9])
    return None


def has_restarted(record: GameRecord) -> bool:
    """Whether the bird moved again for half a second, with no text left that was only there when
    the game was lost."""
    ticks = [*record.in_phase("again")]
    lost = {make_pattern(t) for tick in [*record.in_phase("over")][-1:] for t in tick.texts}
    played = {make_pattern(t) for tick in record.in_phase("play") for t in tick.texts}
    free = [t for t in ticks if not {make_pattern(x) for x in t.texts} & (lost - played)]
    heights = {round(t.bird.y) for t in free if t.bird}
    return len(free) >= 20 and len(heights) >= 5
