"""Labels for the points of a figure, placed so that they cover neither each other nor a point."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from .drawing import INK, escape_text

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, in pixels, y growing downwards."""

LETTER, LINE = 7.0, 16.0  # pixels of a character and of a line at the size of labels
RADII = (18.0, 30.0, 46.0, 66.0, 90.0, 120.0)
DIRECTIONS = 16
MARKER = 9.0
LEADER = 6.0


@dataclass(frozen=True)
class Frame:
    """A plot's ranges and its size in pixels as laid out."""

    x: tuple[float, float]
    y: tuple[float, float]
    size: tuple[float, float]

    def place(self, x: float, y: float) -> tuple[float, float]:
        """A point in pixels from the top left."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        down = (self.y[1] - y) / (self.y[1] - self.y[0])
        return across * self.size[0], down * self.size[1]


def annotate(
    figure: Any,
    names: Mapping[Any, str],
    frame: Frame,
    lines: Sequence[Box] = (),
    **axes: Any,
) -> None:
    """Label points where the labels cover least. axes: which axes the points belong to."""
    points = [frame.place(*point) for point in names]
    offsets = place_labels(points, list(names.values()), frame.size, lines)
    for (x, y), text, (dx, dy) in zip(names, names.values(), offsets, strict=True):
        figure.add_annotation(
            x=x, y=y, ax=dx, ay=dy, text=escape_text(text).replace("\n", "<br>"),
            font={"size": 12, "color": INK},
            arrowwidth=0.8, arrowhead=0, arrowcolor=INK, standoff=7,
            bgcolor="rgba(255,255,255,.75)", **axes,
        )  # fmt: skip


def place_labels(
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    size: tuple[float, float],
    lines: Sequence[Box] = (),
) -> list[tuple[float, float]]:
    """For each point the offset of its label's middle, in pixels, y growing downwards.

    points: in pixels from the top left of an area of `size`; lines: boxes around error bars, which
    a label had better not cover. The labels are placed one after another, the most crowded point
    first, each where it covers least.

    >>> place_labels([(50, 50)], ["a"], (100, 100))
    [(21.5, 0.0)]
    """
    markers = [(x - MARKER, y - MARKER, x + MARKER, y + MARKER) for x, y in points]
    placed: list[Box] = []
    leaders: list[Box] = []
    offsets = [(0.0, 0.0)] * len(points)
    for i in sorted(range(len(points)), key=lambda i: _crowd(points, i)):
        rows = texts[i].split("\n")
        extent = LETTER * max(map(len, rows)), LINE * len(rows)
        scene = _Scene(
            size=size,
            covers=[*markers, *placed, *leaders],
            crosses=[*placed, *markers[:i], *markers[i + 1 :]],
            lines=lines,
        )
        offsets[i] = min(_offsets(*extent), key=partial(scene.cost, points[i], extent))
        placed.append(_box(points[i], offsets[i], *extent))
        leaders += _leader(points[i], offsets[i])
    return offsets


@dataclass(frozen=True)
class _Scene:
    """What a label should keep clear of: covers with its text, crosses with its leader."""

    size: tuple[float, float]
    covers: Sequence[Box]
    crosses: Sequence[Box]
    lines: Sequence[Box]

    def cost(
        self, point: tuple[float, float], extent: tuple[float, float], offset: tuple[float, float]
    ) -> float:
        box = _box(point, offset, *extent)
        outside = extent[0] * extent[1] - overlap(box, (0, 0, *self.size))
        covered = sum(overlap(box, other) for other in self.covers)
        leader = _leader(point, offset)
        crossed = sum(overlap(part, other) for part in leader for other in self.crosses)
        barred = sum(overlap(box, line) for line in self.lines)
        return 10 * (outside + covered + crossed) + barred + math.hypot(*offset)


def overlap(a: Box, b: Box) -> float:
    """The area that two boxes share, in square pixels.

    >>> overlap((0, 0, 2, 2), (1, 1, 3, 3))
    1
    """
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0


def _offsets(width: float, height: float) -> list[tuple[float, float]]:
    found = []
    for radius in RADII:
        for k in range(DIRECTIONS):
            angle = 2 * math.pi * k / DIRECTIONS
            dx, dy = math.cos(angle), math.sin(angle)
            found.append((dx * (radius + width / 2), dy * (radius + height / 2)))
    return found


def _leader(point: tuple[float, float], offset: tuple[float, float]) -> list[Box]:
    """The line from a point to its label, as a chain of small boxes."""
    steps = max(1, round(math.hypot(*offset) / LEADER))
    places = [(point[0] + offset[0] * k / steps, point[1] + offset[1] * k / steps)
              for k in range(1, steps)]  # fmt: skip
    half = LEADER / 2
    return [(x - half, y - half, x + half, y + half) for x, y in places]


def _box(
    point: tuple[float, float], offset: tuple[float, float], width: float, height: float
) -> Box:
    x, y = point[0] + offset[0], point[1] + offset[1]
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _crowd(points: Sequence[tuple[float, float]], i: int) -> float:
    distances = [math.dist(points[i], other) for k, other in enumerate(points) if k != i]
    return min(distances, default=0.0)
