"""What a picture of a game is made of: its pixels, joined to blobs of one colour.

Runs inside the sandbox, where the player follows the bird, and outside, where the judge looks at
the pictures that were kept. Lengths are pixels, and y grows downwards, as in pygame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Color = tuple[int, int, int]
Pixels = NDArray[np.uint32]  # shape (height, width), each 0xRRGGBB

NEAR = 10  # of 255: neighbours that differ less in every channel belong together, as in a gradient
LEAST = 3  # pixels of width and of height; what is smaller is no part of a game
_MOST_RUNS = 20_000  # in a picture; noise has more, and is looked at from further away
_FURTHER = 4  # pixels, from afar
_LARGE = 0.1  # of the picture: the sky is larger


@dataclass(frozen=True)
class Box:
    """A place on the screen."""

    x: float
    y: float
    w: float
    h: float

    @property
    def right(self) -> float:
        return self.x + self.w

    @property
    def bottom(self) -> float:
        return self.y + self.h

    @property
    def middle(self) -> tuple[float, float]:
        return self.x + self.w / 2, self.y + self.h / 2

    def covers(self, other: Box, slack: float = 0) -> bool:
        """Return whether another box lies in this one, or sticks out by no more than slack."""
        return (
            other.x >= self.x - slack
            and other.y >= self.y - slack
            and other.right <= self.right + slack
            and other.bottom <= self.bottom + slack
        )


@dataclass(frozen=True)
class Blob(Box):
    """Pixels of nearly one colour that hang together: their box, mean colour and number."""

    color: Color
    n: int


def is_near(one: Color, other: Color, most: int = NEAR) -> bool:
    """Return whether two colours look the same: no channel differs by more than `most`."""
    return all(abs(a - b) <= most for a, b in zip(one, other, strict=True))


def find_blobs(pixels: Pixels) -> list[Blob]:
    """Return the blobs of a picture, in reading order of their first pixels.

    >>> picture = np.zeros((20, 30), np.uint32)
    >>> picture[5:9, 10:20] = 0xFF0000
    >>> [(blob.x, blob.y, blob.w, blob.h, blob.color) for blob in find_blobs(picture)]
    [(0, 0, 30, 20, (0, 0, 0)), (10, 5, 10, 4, (255, 0, 0))]
    """
    boxes, colors, _, _ = _join(pixels)
    return [
        Blob(x, y, right - x, bottom - y, (r, g, b), n)
        for (x, y, right, bottom, n), (r, g, b) in zip(
            boxes.tolist(), colors.round().astype(int).tolist(), strict=True
        )
        if right - x >= LEAST and bottom - y >= LEAST
    ]


def _join(
    pixels: Pixels, near: bool = True
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Return boxes (x, y, right, bottom, number of pixels), mean colours, and the runs.

    A picture is mostly rows and columns that equal the ones before: one of each is looked at. In
    each row neighbours of nearly one colour are a run, and runs that touch runs of nearly their
    colour above are one blob. The third value is the box of each run, the fourth its blob.

    Where no area is large, as in noise or beneath a pattern of lines, every few pixels are looked
    at as one, if near.
    """
    height, width = pixels.shape
    if not pixels.size:
        return _NOTHING
    if near and _is_patterned(pixels):
        return _join_from_afar(pixels)
    rows = _find_changes(pixels)
    columns = _find_changes(pixels[rows].T)
    few = pixels[np.ix_(rows, columns)]
    bottoms, rights = np.append(rows[1:], height), np.append(columns[1:], width)
    channels = np.stack([few >> 16 & 255, few >> 8 & 255, few & 255], axis=-1).astype(np.int16)
    first = np.ones(few.shape, bool)
    first[:, 1:] = (np.abs(np.diff(channels, axis=1)) > NEAR).any(axis=-1)
    touching = (np.abs(np.diff(channels, axis=0)) <= NEAR).all(axis=-1)
    number = (np.cumsum(first.ravel()) - 1).reshape(few.shape)
    starts = np.flatnonzero(first.ravel())
    if len(starts) > _MOST_RUNS:
        return _join_from_afar(pixels) if near else _NOTHING
    blob = _unite(len(starts), number[:-1][touching], number[1:][touching])

    row, left = np.divmod(starts, few.shape[1])
    last = np.append(starts[1:], few.size) - 1 - row * few.shape[1]
    runs = np.stack([columns[left], rows[row], rights[last], bottoms[row]], axis=1)
    areas = np.outer(bottoms - rows, rights - columns).ravel()
    weighted = channels.reshape(-1, 3) * areas[:, None]
    sums = np.add.reduceat(np.column_stack([weighted, areas]), starts, axis=0)

    order = np.argsort(blob, kind="stable")
    begins = np.flatnonzero(np.diff(blob[order], prepend=-1))
    sums = np.add.reduceat(sums[order], begins, axis=0)
    low = np.minimum.reduceat(runs[order][:, :2], begins, axis=0)
    high = np.maximum.reduceat(runs[order][:, 2:], begins, axis=0)
    boxes = np.column_stack([low, high, sums[:, 3]])
    if near and boxes[:, 4].max() < _LARGE * pixels.size:
        return _join_from_afar(pixels)
    names = np.unique(blob, return_inverse=True)[1]
    return boxes, sums[:, :3] / sums[:, 3:], runs, names


_NOTHING = (np.zeros((0, 5), int), np.zeros((0, 3)), np.zeros((0, 4), int), np.zeros(0, int))


def _is_patterned(pixels: Pixels) -> bool:
    """Return whether a few lines of a picture, across and down, show noise or stripes."""
    changes, steps = [], []
    for some in (pixels[::16], pixels[:, ::16].T):
        one, other = some[:, 1:], some[:, :-1]
        apart = [
            np.abs((one >> at & 255).astype(np.int16) - (other >> at & 255)) > NEAR
            for at in (16, 8, 0)
        ]
        changes.append(np.count_nonzero(one != other) / max(one.size, 1))
        steps.append(np.count_nonzero(apart[0] | apart[1] | apart[2]) / max(one.size, 1))
    return bool(max(steps) > 0.2 or min(changes) > 0.4)


def _join_from_afar(
    pixels: Pixels,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Do as `_join` with the mean of every few pixels: noise of one colour is that colour."""
    height, width = (side // _FURTHER for side in pixels.shape)
    if not height * width:
        return _NOTHING
    parts = pixels[: height * _FURTHER, : width * _FURTHER]

    def add(lanes: Pixels) -> Pixels:
        """Return the means of two channels with 16 bits each, which the sums of 16 pixels fit."""
        rows = sum(lanes[at::_FURTHER] for at in range(1, _FURTHER)) + lanes[::_FURTHER]
        both = sum(rows[:, at::_FURTHER] for at in range(1, _FURTHER)) + rows[:, ::_FURTHER]
        return (both // _FURTHER**2 & 0xFF00FF).astype(np.uint32)

    lanes = np.uint32(0xFF00FF), np.uint32(0xFF), np.uint32(8)
    mean = add(parts & lanes[0]) | add(parts >> lanes[2] & lanes[1]) << lanes[2]
    boxes, colors, runs, blob = _join(mean, near=False)
    boxes, runs = boxes * _FURTHER, runs * _FURTHER
    boxes[:, 4] *= _FURTHER
    return boxes, colors, runs, blob


def _find_changes(pixels: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Return the rows that differ from the one before, and the first."""
    return np.append(0, 1 + np.flatnonzero((pixels[1:] != pixels[:-1]).any(axis=1)))


def _unite(n: int, one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each of n the smallest that it hangs together with, by these pairs."""
    if len(one):
        new = np.append(True, (np.diff(one) != 0) | (np.diff(other) != 0))
        one, other = one[new], other[new]
    name = np.arange(n)
    while True:
        lower = np.minimum(name[one], name[other])
        if (lower == name[one]).all() and (lower == name[other]).all():
            return name
        np.minimum.at(name, name[one], lower)
        np.minimum.at(name, name[other], lower)
        while not (name == name[name]).all():
            name = name[name]


def name_shape(pixels: Pixels, blob: Blob, behind: Color | None = None) -> str:
    """Return what a blob looks like; behind is the colour of what is around it.

    "square", "circle" and "triangle" whichever way they are turned, or "rectangle", "polygon".
    What is drawn over its edge, such as a wing, is filled up by the hull.
    """
    if behind and _is_patterned(pixels):  # pixel for pixel: which of the two is nearer?
        top, left = max(0, int(blob.y) - _FURTHER), max(0, int(blob.x) - _FURTHER)
        part = pixels[top : int(blob.bottom) + _FURTHER, left : int(blob.right) + _FURTHER]
        own, other = (
            sum(
                abs((part >> at & 255).astype(int) - c)
                for at, c in zip((16, 8, 0), color, strict=True)
            )
            for color in (blob.color, behind)
        )
        y, x = np.argwhere(np.less(own, other)).astype(float).T
        right, bottom = x + 1, y + 1
    else:
        boxes, _, runs, names = _join(pixels)
        places = np.array([blob.x, blob.y, blob.right, blob.bottom])
        which = int(np.abs(boxes[:, :4] - places).sum(axis=1).argmin())
        x, y, right, bottom = (runs[names == which, side].astype(float) for side in range(4))
    corners = zip((x, right, x, right), (y, y, bottom, bottom), strict=True)
    hull = _find_hull(np.unique(np.concatenate([np.stack(c, axis=1) for c in corners]), axis=0))
    if len(hull) < 3:
        return "polygon"
    following = np.roll(hull, -1, axis=0)
    crossed = hull[:, 0] * following[:, 1] - following[:, 0] * hull[:, 1]
    area = abs(crossed.sum()) / 2
    smallest = None
    for side in following - hull:
        along = side / np.hypot(*side)
        turned = hull @ np.array([along, [-along[1], along[0]]]).T
        low, high = turned.min(axis=0), turned.max(axis=0)
        if smallest is None or (high - low).prod() < (smallest[2] - smallest[1]).prod():
            smallest = turned, low, high
    assert smallest is not None
    turned, low, high = smallest
    filled, ratio = area / (high - low).prod(), (high - low).max() / (high - low).min()
    if filled < 0.64:
        return "triangle"
    if filled > 0.89:
        return "square" if ratio < 1.7 else "rectangle"
    # Of a circle every side is equally far from the middle, but for half a pixel.
    from_middle = 2 * (turned - (low + high) / 2) / (high - low)
    middles = (from_middle + np.roll(from_middle, -1, axis=0)) / 2
    nearest = np.hypot(middles[:, 0], middles[:, 1]).min()
    slack = 1.5 / (high - low).min()
    if filled < 0.7 or nearest < 0.91 - slack:
        return "polygon"
    return "circle" if ratio < 1.7 else "ellipse"


def _find_hull(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the corners of the convex hull of sorted points, in order (Andrew's chain)."""

    def walk(path: list[list[float]]) -> list[list[float]]:
        hull: list[list[float]] = []
        for x, y in path:
            while len(hull) > 1:
                (ax, ay), (bx, by) = hull[-2:]
                if (bx - ax) * (y - ay) > (by - ay) * (x - ax):
                    break
                hull.pop()
            hull.append([x, y])
        return hull[:-1]

    listed = points.tolist()
    return np.array(walk(listed) + walk(listed[::-1]))
