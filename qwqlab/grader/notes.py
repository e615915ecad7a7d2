"""What the player writes down in the sandbox, line by line, and how it is read outside.

The game runs in the player's process and can write anything there. So reading is strict: every
value has its kind, its range and its length, and one line is held at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .pixels import Box
from .scene import Pipe, Text

RECORD, PICTURE = "record.jsonl", "{}.picture"
MOST_TICKS, MOST_PICTURES = 6000, 32
MOST_PIPES, MOST_TEXTS = 8, 12  # in one picture
_MOST_WORDS = 80  # characters of one text
_MOST_LINE, _MOST_BYTES = 20_000, 16_000_000
_FAR = 20_000  # pixels: nothing that counts is further from the screen


@dataclass
class Tick:
    """One picture, as the player noted it and the judge reads it.

    phase is what the player was doing, moving whether the bird had been seen to move, passed the
    number of pipes within the phase; key was pressed after this picture.
    """

    phase: str
    bird: Box | None
    moving: bool
    pipes: tuple[Pipe, ...]
    texts: tuple[Text, ...]
    passed: int
    key: str = ""


def write_notes(end: dict[str, Any], ticks: list[Tick]) -> Iterator[str]:
    """Yield the lines: how the run ended, then a line for each picture."""
    yield json.dumps(end)
    for t in ticks:
        bird = [t.bird.x, t.bird.y, t.bird.w, t.bird.h] if t.bird else None
        pipes = [[p.x, p.w, p.top, p.bottom] for p in t.pipes[:MOST_PIPES]]
        texts = [[x.words[:_MOST_WORDS], x.x, x.y, x.w, x.h] for x in t.texts[-MOST_TEXTS:]]
        yield json.dumps([t.phase, bird, t.moving, pipes, texts, t.passed, t.key])


def read_notes(data: bytes) -> tuple[dict[str, Any], tuple[Tick, ...]]:
    """Return what `write_notes` wrote. Raise ValueError for anything that it never writes."""
    if len(data) > _MOST_BYTES:
        raise ValueError(f"it has {len(data):,} bytes")
    if not data:
        raise ValueError("it is empty, as on a disk that the game has filled")
    lines = data.split(b"\n", MOST_TICKS + 2)
    if len(lines) > MOST_TICKS + 2:
        raise ValueError(f"it has more than {MOST_TICKS:,} pictures")
    end, *ticks = map(_load, filter(None, lines))
    ended, detail, phase, size, asked, pictures = _take(end, dict, 6).values()
    width, height = _take(size, list, 2)
    known = {
        "ended": _take(ended, str, 20),
        "detail": _take(detail, str, 500),
        "phase": _take(phase, str, 20),
        "size": (_count(width, 1 << 14), _count(height, 1 << 14)),
        "asked": _count(asked, 10**9),
        "pictures": {
            _count(at, MOST_TICKS): _take(name, str, 20)
            for at, name in (_take(each, list, 2) for each in _take(pictures, list, MOST_PICTURES))
        },
    }
    return known, tuple(map(_read_tick, ticks))


def _load(line: bytes) -> Any:
    if len(line) > _MOST_LINE:
        raise ValueError(f"a line of {len(line):,} bytes")
    try:
        return json.loads(line)
    except RecursionError:
        raise ValueError("lists in lists without end") from None


def _read_tick(values: Any) -> Tick:
    phase, bird, moving, pipes, texts, passed, key = _take(values, list, 7)
    box = None
    if bird is not None:
        x, y, w, h = _places(bird, 4)
        if min(w, h) <= 0:
            raise ValueError("a bird without size")
        box = Box(x, y, w, h)
    return Tick(
        _take(phase, str, 20),
        box,
        _take(moving, bool),
        tuple(map(_read_pipe, _take(pipes, list, MOST_PIPES))),
        tuple(map(_read_text, _take(texts, list, MOST_TEXTS))),
        _count(passed, MOST_TICKS),
        _take(key, str, 20),
    )


def _read_pipe(values: Any) -> Pipe:
    x, w, top, bottom = _places(values, 4)
    return Pipe(x, w, top, bottom)


def _read_text(values: Any) -> Text:
    words, *place = _take(values, list, 5)
    x, y, w, h = _places(place, 4)
    return Text(x, y, w, h, _take(words, str, _MOST_WORDS))


def _take(value: Any, kind: type[Any], most: int | None = None) -> Any:
    """Return a value if it is of this kind, and not longer than it may be."""
    if type(value) is not kind or (most is not None and len(value) > most):
        raise ValueError(f"a {type(value).__name__} where a {kind.__name__} is written")
    return value


def _count(value: Any, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError("a number that is no count")
    return value


def _places(values: Any, n: int) -> list[float]:
    if len(_take(values, list, n)) != n or any(type(v) not in (int, float) for v in values):
        raise ValueError("a place without its numbers")
    if not all(-_FAR <= v <= _FAR for v in values):
        raise ValueError("a place far from any screen")
    return list(map(float, values))
