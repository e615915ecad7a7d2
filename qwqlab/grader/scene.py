"""What a picture of a game shows: background, land, pipes and what may be the bird.

Runs inside the sandbox for the player and outside for the judge, like `pixels`.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

from .pixels import Blob, Box, Color, is_near

_REACH = 6  # pixels: a cap or a border belongs to the pipe that it is so near to


@dataclass(frozen=True)
class Text(Box):
    """Words on the screen."""

    words: str


@dataclass(frozen=True)
class Pipe:
    """A column of pipes: its left edge and width, and the gap between `top` and `bottom`.

    color is None where only the place was noted.
    """

    x: float
    w: float
    top: float
    bottom: float
    color: Color | None = None

    @property
    def right(self) -> float:
        return self.x + self.w


@dataclass(frozen=True)
class Scene:
    """A picture, sorted. small holds what may be the bird, largest first."""

    background: Color | None
    land: Blob | None
    pipes: tuple[Pipe, ...]
    small: tuple[Blob, ...]


def read_scene(
    blobs: Sequence[Blob],
    width: int,
    height: int,
    texts: Sequence[Text] = (),
    bird: Box | None = None,
) -> Scene:
    """Sort the blobs of one picture.

    bird is where the bird was in the picture before; what is there is no pipe and no letter.

    >>> sky = Blob(0, 0, 400, 550, (135, 206, 235), 190_000)
    >>> ground = Blob(0, 550, 400, 50, (139, 69, 19), 20_000)
    >>> top, low = (Blob(300, y, 60, h, (0, 90, 0), 60 * h) for y, h in ((0, 200), (350, 200)))
    >>> scene = read_scene([sky, top, low, ground], 400, 600)
    >>> scene.background, scene.land == ground, scene.pipes[0].top, scene.pipes[0].bottom
    ((135, 206, 235), True, 200, 350)
    """
    land, floor = _find_land(blobs, width, height)
    sky = [b for b in blobs if b.w >= 0.6 * width and b.h >= 0.2 * height and b is not land]
    background = max(sky, key=lambda b: b.n).color if sky else None
    shapes = [
        b
        for b in blobs
        if b.w < 0.6 * width
        and b.y < floor - 1
        and not (background and is_near(b.color, background))
        and not (_is_letter(b, texts) and not _is_same(b, bird))
    ]
    if not land:
        floor = _guess_floor(shapes, width, height)
    columns = [
        b
        for b in shapes
        if b.w <= 0.4 * width
        and (b.y <= 1 or b.bottom >= floor - 3)
        and not _is_same(b, bird)
        and _is_filled(b, shapes)
    ]
    loose = [b for b in shapes if b not in columns and not _is_same(b, bird)]
    pipes = _group_columns(columns, loose, width, floor)
    small = [
        b
        for b in shapes
        if _may_be_bird(b, width, height) and (b not in columns or not _is_in_pipe(b, pipes))
    ]
    small.sort(key=lambda b: -b.n)
    return Scene(background, land, tuple(pipes), tuple(small))


def _is_letter(blob: Blob, texts: Sequence[Text]) -> bool:
    return any(text.covers(blob, 2) for text in texts)


def _is_same(blob: Blob, bird: Box | None) -> bool:
    """Return whether a blob can be the bird that was here in the picture before."""
    return bool(
        bird
        and abs(blob.middle[0] - bird.middle[0]) < 4
        and abs(blob.middle[1] - bird.middle[1]) < 60
        and abs(blob.w - bird.w) < 6
        and abs(blob.h - bird.h) < 12
    )


def _may_be_bird(blob: Blob, width: int, height: int) -> bool:
    most = 0.25 * max(width, height)
    return 4 <= blob.w <= most and 4 <= blob.h <= most


def _is_filled(blob: Blob, shapes: Sequence[Blob]) -> bool:
    """Return whether a blob is a rectangle, with what lies inside: a border holds its pipe."""
    n = blob.n
    if n < 0.8 * blob.w * blob.h:
        n += sum(b.n for b in shapes if b is not blob and blob.covers(b))
    return n >= 0.8 * blob.w * blob.h


def _is_in_pipe(blob: Blob, pipes: Sequence[Pipe]) -> bool:
    return any(pipe.x - 2 <= blob.x and blob.right <= pipe.right + 2 for pipe in pipes)


def _find_land(blobs: Sequence[Blob], width: int, height: int) -> tuple[Blob | None, float]:
    """Return the band along the bottom, one blob or tiles side by side, and where it begins.

    Bands above it, such as grass, belong to it.
    """
    low = [b for b in blobs if b.y >= 0.5 * height and b.bottom >= height - 3 and b.h >= 4]
    for first in sorted(low, key=lambda b: -b.n):
        tiles = [b for b in low if abs(b.y - first.y) < 2]
        if sum(b.w for b in tiles) < 0.7 * width:
            continue
        area: dict[Color, int] = {}
        for tile in tiles:
            area[tile.color] = area.get(tile.color, 0) + tile.n
        color = max(area, key=lambda c: (area[c], c))
        land = Blob(0, first.y, width, height - first.y, color, sum(area.values()))
        top = first.y
        for band in sorted(blobs, key=lambda b: -b.bottom):
            wide = band.w >= 0.9 * width and band.y >= 0.5 * height
            if wide and band.y < top <= band.bottom + 2:
                top = band.y
        return land, top
    return None, height


def _guess_floor(shapes: Sequence[Blob], width: int, height: int) -> float:
    """Return where the lower pipes end in a game without land: at the bottom, or above it."""
    ends = [
        b.bottom
        for b in shapes
        if b.y > 1 and b.h >= 0.1 * height and 0.02 * width <= b.w <= 0.4 * width
    ]
    return min(height, max((end for end in ends if end >= 0.75 * height), default=height))


def _group_columns(
    columns: Sequence[Blob], loose: Sequence[Blob], width: int, floor: float
) -> list[Pipe]:
    """Return the pipes from left to right: blobs above or beside each other, with their caps."""
    groups: list[list[Blob]] = []
    for blob in sorted(columns, key=lambda b: b.x):
        if groups and blob.x <= max(b.right for b in groups[-1]) + 2:
            groups[-1].append(blob)
        else:
            groups.append([blob])
    pipes = []
    for group in groups:
        left, right = min(b.x for b in group), max(b.right for b in group)
        top = max((b.bottom for b in group if b.y <= 1), default=0.0)
        bottom = min((b.y for b in group if b.y > 1), default=floor)
        around = 0.3 * (right - left) + 2
        near = [b for b in loose if b.x >= left - around and b.right <= right + around]
        for blob in sorted(near, key=lambda b: b.y):
            if top and blob.y <= top + _REACH and blob.bottom > top:
                top, left, right = blob.bottom, min(left, blob.x), max(right, blob.right)
        for blob in sorted(near, key=lambda b: -b.bottom):
            if bottom < floor and blob.bottom >= bottom - _REACH and top < blob.y < bottom:
                bottom, left, right = blob.y, min(left, blob.x), max(right, blob.right)
        if bottom > top and right - left >= 0.02 * width:
            color = max(group, key=lambda b: b.n).color
            pipes.append(Pipe(left, right - left, top, bottom, color))
    return pipes


@dataclass
class _Track:
    """Blobs that may be one thing in picture after picture; x is where the first had its middle.

    moved counts how often it was somewhere else than at `left`. A pipe that passes in front of a
    sun moves one of its edges, or both towards each other.
    """

    blob: Blob
    x: float
    left: Blob
    seen: int = 0
    moved: int = 0

    def take(self, blob: Blob) -> None:
        """Go on with a blob of the next picture."""
        top, bottom = blob.y - self.left.y, blob.bottom - self.left.bottom
        if min(abs(top), abs(bottom)) > 0.3 and top * bottom > 0:
            self.left, self.moved = blob, self.moved + 1
        self.blob = blob

    def goes_on_with(self, blob: Blob) -> bool:
        """Return whether a blob of the next picture can be the same thing."""
        return (
            abs(blob.middle[0] - self.x) <= 4
            and abs(blob.middle[1] - self.blob.middle[1]) <= 60
            and 0.5 <= blob.w / self.blob.w <= 2
        )


class BirdTracker:
    """Follows what keeps its place from left to right and moves up and down."""

    def __init__(self) -> None:
        self._tracks: list[_Track] = []
        self._now = 0

    def follow(self, small: Sequence[Blob], width: int) -> tuple[Blob | None, bool]:
        """Return the bird in this picture, and whether it has been seen to move up or down."""
        self._now += 1
        for blob in small:
            free = (t for t in self._tracks if t.seen < self._now and t.goes_on_with(blob))
            track = next(free, None)
            if track is None:
                track = _Track(blob, blob.middle[0], blob)
                self._tracks.append(track)
            track.take(blob)
            track.seen = self._now
        self._tracks = [t for t in self._tracks if t.seen > self._now - 4]
        here = [t for t in self._tracks if t.seen == self._now]
        most = max((t.moved for t in here), default=0)
        moving = most >= 2
        birds = [
            t.blob
            for t in here
            if (t.moved >= 0.5 * most if moving else 0.03 * width < t.x < 0.75 * width)
        ]
        return max(birds, key=lambda blob: blob.n, default=None), moving


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
    """Return whether a colour is dark: less luminous than middle gray, and no shining red.

    Luminance is that of sRGB, which, unlike luma, tells how dark a green looks. Where people
    disagree it is dark: pure blue, teal, olive, crimson at (219, 20, 60), a gray of 120.

    >>> [is_dark(c) for c in ((139, 0, 0), (0, 139, 139), (85, 85, 85), (0, 0, 255))]
    [True, True, True, True]
    >>> [is_dark(c) for c in ((255, 0, 0), (0, 200, 0), (255, 0, 255), (128, 128, 128))]
    [False, False, False, False]
    """
    linear = [((c / 255 + 0.055) / 1.055) ** 2.4 if c > 10 else c / 255 / 12.92 for c in color]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] < 0.21 and color[0] < 220


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
