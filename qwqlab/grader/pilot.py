"""The player's eyes and thumb: what has moved since the last picture, and when to press SPACE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .scene import BirdTracker, Mark, Pipe, Scene, read_scene


class Pilot:
    """Sees picture after picture of a game.

    scene and bird are those of the last; moving is whether the bird has been seen to move, still
    the number of pictures in which nothing did, passed the pipes that it got past.
    """

    def __init__(self) -> None:
        self.scene = Scene(None, None, (), (), ())
        self.bird: Mark | None = None
        self.moving = False
        self.still = 0
        self.passed = 0
        self._size = (0, 0)
        self._tracker = BirdTracker()
        self._tops: list[float] = []  # where the bird was in the last pictures
        self._ahead: list[Pipe] = []
        self._gravity = 0.5  # pixels a picture, a picture

    def see(self, picture: Sequence[Mark], size: tuple[int, int]) -> None:
        """Take in a picture of a window of this size."""
        before = self.scene.pipes, self.bird
        self._size = size
        self.scene = read_scene(picture, *size, self.bird)
        self.bird, self.moving = self._tracker.follow(self.scene.small, size[0])
        self._count_passed()
        self._tops = [*self._tops[-2:], self.bird.y] if self.bird else []
        same = before == (self.scene.pipes, self.bird)
        self.still = self.still + 1 if same or not self.bird else 0

    def describe(self) -> dict[str, Any]:
        """What was seen in the last picture, as values for JSON; `game_record` reads them."""
        bird, land, scene = self.bird, self.scene.land, self.scene
        return {
            "background": scene.background,
            "land": [land.color, land.y, land.h] if land else None,
            "bird": [bird.kind, bird.color, bird.x, bird.y, bird.w, bird.h, bird.detail]
            if bird
            else None,
            "moving": self.moving,
            "pipes": [[p.x, p.w, p.top, p.bottom, p.color] for p in scene.pipes[:8]],
            "texts": [[t.detail[:80], t.x, t.y, t.w, t.h] for t in scene.texts[-12:]],
            "passed": self.passed,
        }

    def forget(self) -> None:
        """A new round: the bird may be another one."""
        self._tracker = BirdTracker()

    def _count_passed(self) -> None:
        if not self.bird:
            return
        left = self.bird.x
        ahead = [pipe for pipe in self.scene.pipes if pipe.right >= left]
        before = self._ahead[0] if self._ahead else None
        # One step ago its right edge was near the bird; a new round takes pipes away anywhere.
        if before and before.right - left < 40 and (not ahead or ahead[0].x > before.x + 20):
            self.passed += 1
        self._ahead = ahead

    def wants_up(self) -> bool:
        """Whether the bird, if left alone, sinks below the line that it should keep above."""
        bird, (width, height) = self.bird, self._size
        if not bird or not self.moving or self.still or len(self._tops) < 3:
            return False
        first, second, third = self._tops
        speed, change = third - second, third - 2 * second + first
        if 0 < change < 5:
            self._gravity += 0.2 * (change - self._gravity)
        floor = self.scene.land.y if self.scene.land else height
        line = 0.5 * floor + bird.h
        ahead = [pipe for pipe in self.scene.pipes if pipe.right >= bird.x - 2]
        if ahead and ahead[0].x < bird.x + 0.9 * width:
            gap = ahead[0].bottom - ahead[0].top
            line = ahead[0].bottom - max(5.0, 0.1 * gap)
        if speed < 0:  # it rises: how far will that carry it?
            return bird.bottom - speed * speed / (2 * max(self._gravity, 0.05)) > line
        return bird.bottom + speed + self._gravity > line
