"""What is on a game's screen, read from what it drew: background, land, pipes, bird, texts.

Pure Python: the same code finds the bird for the player inside the sandbox and names shapes and
colours for the judge outside. Lengths are pixels, and y grows downwards, as in pygame.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Mark:
    """One thing drawn: kind, colour and bounding box.

    kind is "rect", "circle", "polygon", "line" or "text"; detail is the text, or the number of a
    polygon's corners. solid is whether it hides what is behind it.
    """

    kind: str
    color: Color
    x: float
    y: float
    w: float
    h: float
    detail: str = ""
    solid: bool = True

    @property
    def right(self) -> float:
        return self.x + self.w

    @property
    def bottom(self) -> float:
        return self.y + self.h

    @property
    def middle(self) -> tuple[float, float]:
        return self.x + self.w / 2, self.y + self.h / 2

    @property
    def area(self) -> float:
        return self.w * self.h


@dataclass(frozen=True)
class Pipe:
    """A column of pipes: its left edge and width, and the gap between `top` and `bottom`."""

    x: float
    w: float
    top: float
    bottom: float
    color: Color

    @property
    def right(self) -> float:
        return self.x + self.w


@dataclass(frozen=True)
class Scene:
    """A picture, sorted. small holds what may be the bird, largest first."""

    background: Color | None
    land: Mark | None
    pipes: tuple[Pipe, ...]
    small: tuple[Mark, ...]
    texts: tuple[Mark, ...]


@dataclass
class Tick:
    """One picture, as the player noted it and the judge reads it.

    phase is what the player was doing, moving whether the bird had been seen to move, passed the
    number of pipes within the phase; key was pressed after this picture.
    """

    phase: str
    background: Color | None
    land: Mark | None
    bird: Mark | None
    moving: bool
    pipes: tuple[Pipe, ...]
    texts: tuple[Mark, ...]
    passed: int
    key: str = ""


def read_scene(marks: Iterable[Mark], width: int, height: int, bird: Mark | None = None) -> Scene:
    """Sort the marks of one picture, in the order in which they were drawn.

    bird is what was the bird in the picture before; a mark at its place is not taken for a pipe.

    >>> sky = Mark("rect", (135, 206, 235), 0, 0, 400, 600)
    >>> ground = Mark("rect", (139, 69, 19), 0, 550, 400, 50)
    >>> top, low = (Mark("rect", (0, 90, 0), 300, y, 60, h) for y, h in ((0, 200), (350, 200)))
    >>> scene = read_scene([sky, top, low, ground], 400, 600)
    >>> scene.background, scene.land == ground, scene.pipes[0].top, scene.pipes[0].bottom
    ((135, 206, 235), True, 200, 350)
    """
    texts: list[Mark] = []
    shapes: list[Mark] = []
    background, behind = None, None
    for mark in marks:
        outside = mark.right <= 0 or mark.x >= width or mark.bottom <= 0 or mark.y >= height
        if mark.kind == "text":
            texts.append(mark)
        elif outside or not mark.solid:
            continue
        elif mark.area >= 0.55 * width * height:
            background, behind = mark.color, mark
            shapes.clear()
        else:
            shapes.append(mark)
    land = _find_land(shapes, width, height, behind)
    floor = land.y if land else _guess_floor(shapes, width, height)
    small = [m for m in shapes if _may_be_bird(m, width, height)]
    columns = [
        m
        for m in shapes
        if m.kind != "circle"
        and 0.02 * width <= m.w <= 0.4 * width
        and (m.y <= 1 or m.bottom >= floor - 3)
        and m.y < floor - 1
        and not (bird and abs(m.x - bird.x) < 4 and abs(m.w - bird.w) < 4 and m.h < 0.2 * height)
    ]
    small = [m for m in small if m not in columns and m.y < floor - 1]
    small.sort(key=lambda m: -m.area)
    pipes = _group_columns(columns, floor)
    return Scene(background, land, tuple(pipes), tuple(small), tuple(texts))


def _may_be_bird(mark: Mark, width: int, height: int) -> bool:
    most = 0.25 * max(width, height)
    return mark.kind != "line" and 4 <= mark.w <= most and 4 <= mark.h <= most


def _find_land(shapes: Sequence[Mark], width: int, height: int, behind: Mark | None) -> Mark | None:
    """Return the band along the bottom: one mark, or tiles side by side.

    If a game draws no land but fills the screen and then paints the sky above it, what it filled
    the screen with is not seen here.
    """
    low = [m for m in shapes if m.y >= 0.5 * height and m.bottom >= height - 3 and m.h >= 4]
    whole = [m for m in low if m.x <= 2 and m.right >= width - 2]
    if whole:
        return min(whole, key=lambda m: (m.y, -m.h))
    for first in low:
        tiles = [m for m in low if abs(m.y - first.y) < 2]
        covered = sum(min(m.right, width) - max(m.x, 0) for m in tiles)
        if len(tiles) > 1 and covered >= 0.9 * width:
            widest = max(tiles, key=lambda m: m.w)
            return Mark("rect", widest.color, 0, first.y, width, first.h)
    return None


def _guess_floor(shapes: Sequence[Mark], width: int, height: int) -> float:
    """Return where the lower pipes end in a game without land: at the bottom, or above it."""
    ends = [
        m.bottom
        for m in shapes
        if m.y > 1 and m.h >= 0.1 * height and 0.02 * width <= m.w <= 0.4 * width
    ]
    return min(height, max((end for end in ends if end >= 0.75 * height), default=height))


def _group_columns(marks: Sequence[Mark], floor: float) -> list[Pipe]:
    """Return the columns from left to right; each is made of marks above each other."""
    groups: list[list[Mark]] = []
    for mark in sorted(marks, key=lambda m: m.x):
        if groups and mark.x < max(m.right for m in groups[-1]) - 0.5 * mark.w:
            groups[-1].append(mark)
        else:
            groups.append([mark])
    pipes = []
    for group in groups:
        top = max((m.bottom for m in group if m.y <= 1), default=0.0)
        bottom = min((m.y for m in group if m.bottom >= floor - 3 and m.y > 1), default=floor)
        largest = max(group, key=lambda m: m.area)
        if bottom > top:
            left, right = min(m.x for m in group), max(m.right for m in group)
            pipes.append(Pipe(left, right - left, top, bottom, largest.color))
    return pipes


@dataclass
class _Track:
    """Marks that may be one thing in picture after picture; x is where the first had its middle."""

    mark: Mark
    x: float
    seen: int = 0
    moved: int = 0

    def goes_on_with(self, mark: Mark) -> bool:
        """Return whether a mark of the next picture can be the same thing."""
        return (
            abs(mark.middle[0] - self.x) <= 3
            and abs(mark.middle[1] - self.mark.middle[1]) <= 60
            and 0.5 <= mark.w / self.mark.w <= 2
        )


class BirdTracker:
    """Follows what keeps its place from left to right and moves up and down."""

    def __init__(self) -> None:
        self._tracks: list[_Track] = []
        self._now = 0

    def follow(self, small: Sequence[Mark], width: int) -> tuple[Mark | None, bool]:
        """Return the bird in this picture, and whether it has been seen to move up or down."""
        self._now += 1
        for mark in small:
            free = (t for t in self._tracks if t.seen < self._now and t.goes_on_with(mark))
            track = next(free, None)
            if track is None:
                track = _Track(mark, mark.middle[0])
                self._tracks.append(track)
            track.moved += abs(mark.middle[1] - track.mark.middle[1]) > 0.3
            track.mark, track.seen = mark, self._now
        self._tracks = [t for t in self._tracks if t.seen > self._now - 4]
        here = [t for t in self._tracks if t.seen == self._now]
        most = max((t.moved for t in here), default=0)
        moving = most >= 2
        birds = [
            t.mark
            for t in here
            if (t.moved >= 0.5 * most if moving else 0.03 * width < t.x < 0.75 * width)
        ]
        return max(birds, key=lambda mark: mark.area, default=None), moving


def name_shape(mark: Mark) -> str:
    """Return what a small mark looks like: "square", "circle", "triangle", or another word."""
    ratio = mark.w / mark.h
    if mark.kind == "circle":
        return "circle" if 0.6 < ratio < 1.7 else "ellipse"
    if mark.kind == "polygon":
        corners = int(mark.detail or 0)
        return {3: "triangle", 4: "square"}.get(corners, "circle" if corners > 8 else "polygon")
    return "square" if 0.6 < ratio < 1.7 else "rectangle"


def _measure_light(color: Color) -> float:
    """Return how light a colour looks, 0 (black) to 255 (white): luma of ITU-R BT.601."""
    r, g, b = color
    return 0.299 * r + 0.587 * g + 0.114 * b


def _hue(color: Color) -> tuple[float, float]:
    """Return hue in degrees and saturation, 0 to 1."""
    h, s, _ = colorsys.rgb_to_hsv(*(c / 255 for c in color))
    return 360 * h, s


def is_light(color: Color) -> bool:
    return _measure_light(color) >= 140


def is_dark(color: Color) -> bool:
    return _measure_light(color) <= 128


def is_light_blue(color: Color) -> bool:
    """Return whether a colour is light and its hue lies from cyan to blue.

    >>> is_light_blue((135, 206, 235)), is_light_blue((255, 182, 193))
    (True, False)
    """
    hue, saturation = _hue(color)
    return is_light(color) and 165 <= hue <= 255 and saturation > 0.04


def is_brown_or_yellow(color: Color) -> bool:
    """Return whether a colour is yellow or brown, a dark orange; both lie between red and green.

    >>> is_brown_or_yellow((101, 67, 33)), is_brown_or_yellow((255, 215, 0))
    (True, True)
    """
    hue, saturation = _hue(color)
    return saturation >= 0.2 and 12 <= hue <= 70 and (hue >= 40 or _measure_light(color) <= 150)


def is_pipe_color(color: Color) -> bool:
    """Return whether a colour is dark green, light brown or dark gray.

    >>> [is_pipe_color(c) for c in ((0, 100, 0), (181, 101, 29), (64, 64, 64), (255, 0, 0))]
    [True, True, True, False]
    """
    hue, saturation = _hue(color)
    light = _measure_light(color)
    green = 75 <= hue <= 170 and light <= 135 and saturation > 0.15
    brown = 12 <= hue <= 50 and 75 <= light <= 215 and saturation > 0.15
    gray = saturation <= 0.16 and 25 <= light <= 150
    return green or brown or gray
