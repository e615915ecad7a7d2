"""What a game showed while it was played in the sandbox, read from its untrusted record."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from .colors import Color
from .scene import Mark, Pipe

MOST_TICKS = 10_000


@dataclass(frozen=True)
class Tick:
    """One picture. phase is what the player was about; passed counts pipes within the phase.

    moving is whether the bird had been seen to move; key is what was pressed after this picture.
    """

    phase: str
    background: Color | None
    land: Mark | None
    bird: Mark | None
    moving: bool
    pipes: tuple[Pipe, ...]
    texts: tuple[Mark, ...]
    passed: int
    key: str


@dataclass(frozen=True)
class Plan:
    """How a game is played: to lose twice ("play") or for a moment ("look"), and which key is to
    end it when: in "play" or when the game is "over"."""

    seed: int
    goal: str = "play"
    key: str = "q"
    when: str = "over"


@dataclass(frozen=True)
class GameRecord:
    """One run of a game.

    ended is "exit" (the program ended), "error" (it raised), "stuck" (it showed nothing and asked
    for nothing), "script" (the plan was played to its end) or "killed" (by the sandbox; detail says
    why). size is the window's, in pixels; asked counts how often the game asked for events.
    """

    plan: Plan
    ended: str
    detail: str
    phase: str = "start"
    size: tuple[int, int] = (0, 0)
    asked: int = 0
    ticks: tuple[Tick, ...] = ()
    pictures: tuple[tuple[str, bytes], ...] = ()

    @property
    def quit_by_key(self) -> bool:
        """Whether the program ended when the plan's key was pressed."""
        return self.ended in ("exit", "error") and self.phase.startswith("quit")

    def in_phase(self, *phases: str) -> Iterator[Tick]:
        """The ticks of these phases."""
        return (tick for tick in self.ticks if tick.phase in phases)

    def rounds(self) -> list[list[Tick]]:
        """The ticks of each round: up to the first loss, and after the restart."""
        first = [*self.in_phase("start", "play", "falling", "over", "never lost")]
        return [part for part in (first, [*self.in_phase("again", "over again")]) if part]

    def runs_of_phases(self) -> list[tuple[str, int]]:
        """The phases in their order, each with its number of ticks."""
        return [(phase, len([*ticks])) for phase, ticks in groupby(t.phase for t in self.ticks)]


def read_record(data: bytes, plan: Plan, pictures: dict[str, bytes]) -> GameRecord:
    """The record that the player wrote. ValueError for anything but what it writes."""
    try:
        values = json.loads(data.decode("utf-8"))
        width, height = (int(_number(side)) for side in values["size"])
        if len(values["log"]) > MOST_TICKS:
            raise ValueError(f"it holds {len(values['log'])} pictures")
        return GameRecord(
            plan,
            str(values["ended"]),
            str(values["detail"])[:500],
            str(values["phase"])[:40],
            (width, height),
            int(values["asked"]),
            tuple(_read_tick(tick) for tick in values["log"]),
            tuple((name, data) for name, data in pictures.items() if data[:4] == b"\x89PNG"),
        )
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        RecursionError,
        OverflowError,
    ) as error:
        raise ValueError(f"the record of the game cannot be read: {error!r}") from None


def _read_tick(values: dict[str, Any]) -> Tick:
    land, bird = values["land"], values["bird"]
    return Tick(
        str(values["phase"])[:40],
        _color(values["background"]) if values["background"] else None,
        Mark("rect", _color(land[0]), 0, _number(land[1]), 0, _number(land[2])) if land else None,
        _read_bird(bird) if bird else None,
        bool(values["moving"]),
        tuple(map(_read_pipe, values["pipes"][:8])),
        tuple(map(_read_text, values["texts"][:12])),
        int(values["passed"]),
        str(values.get("key", ""))[:10],
    )


def _read_pipe(pipe: list[Any]) -> Pipe:
    x, w, top, bottom = map(_number, pipe[:4])
    return Pipe(x, w, top, bottom, _color(pipe[4]))


def _read_text(text: list[Any]) -> Mark:
    x, y, w, h = map(_number, text[1:5])
    return Mark("text", (0, 0, 0), x, y, w, h, str(text[0])[:80])


def _read_bird(bird: list[Any]) -> Mark:
    x, y, w, h = map(_number, bird[2:6])
    if w <= 0 or h <= 0:
        raise ValueError("a bird without a size")
    detail = " ".join(str(int(number)) for number in bird[6].split())
    if bird[0] == "image" and len(detail.split()) != 2:
        raise ValueError("an image without a shape")
    return Mark(str(bird[0])[:10], _color(bird[1]), x, y, w, h, detail)


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value} is no place on a screen")
    return number


def _color(value: Any) -> Color:
    r, g, b = (min(255, max(0, int(part))) for part in value)
    return r, g, b
