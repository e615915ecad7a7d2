"""pygame as a game in the sandbox meets it: a window whose pictures the player sees.

Runs inside the sandbox, next to the game. What is drawn is pygame's own work. Nothing here waits:
clocks, sleeps and timers read one virtual time, so a minute of play takes a second and is the same
on every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pygame
from numpy.typing import NDArray

from .lettering import Lettering
from .pygame_time import FRAME, Keyboard, VirtualTime
from .scene import Text

_MOST_REPEATS = 12  # pictures that change nothing while no time passes, until one counts


class PatchedPygame:
    """Patches pygame and time. on_tick is called for each picture that the game shows, and for
    each turn of a loop that only waits for events.

    luck: a number by which this run's clock differs from that of other runs.
    """

    def __init__(self, on_tick: Callable[[], None], luck: int) -> None:
        self.time = VirtualTime(luck)
        self.time.replace_clocks()
        self.screen: pygame.Surface | None = None
        self._on_tick = on_tick
        self._lettering = Lettering()
        self._last_flip, self._repeats = -1.0, 0
        # What is on the screen, each pixel 0xRRGGBB, and the same without texts: made once, since
        # the system clears what it gives.
        self.pixels = self._clean = np.zeros((0, 0), np.uint32)
        self._patch_screen()
        self.keyboard = Keyboard(self.time, self._on_tick)

    @property
    def size(self) -> tuple[int, int]:
        return self.screen.get_size() if self.screen else (0, 0)

    def look(self) -> tuple[tuple[Text, ...], NDArray[np.uint32]]:
        """Return the texts on the screen, and its pixels without them: (height, width)."""
        if not self.screen:
            return (), self._clean
        np.copyto(self.pixels, self._read_screen())
        self.pixels &= 0xFFFFFF
        np.copyto(self._clean, self.pixels)
        return self._lettering.read_screen(self.screen, self._clean), self._clean

    def _read_screen(self) -> NDArray[np.uint32]:
        assert self.screen
        return np.frombuffer(self.screen.get_view("0"), np.uint32).reshape(self.pixels.shape)

    def _show(self, *_: Any, **__: Any) -> None:
        if self.screen and self.time.now == self._last_flip:  # no clock limits the game's speed
            same = np.array_equal(self._read_screen() & 0xFFFFFF, self.pixels)
            if same and self._repeats < _MOST_REPEATS:
                self._repeats += 1
                return  # one picture, shown twice
            self.time.pass_(FRAME)
        self._last_flip, self._repeats = self.time.now, 0
        self.keyboard.begin_picture()
        self._on_tick()

    def _patch_screen(self) -> None:
        watch, set_mode = self, pygame.display.set_mode

        def open_window(*args: Any, **named: Any) -> pygame.Surface:
            size = set_mode(*args, **named).get_size()
            if watch.size != size or not watch.screen:
                watch.screen = watch._lettering.canvas(size, 0, 32)
                watch.pixels, watch._clean = (np.zeros(size[::-1], np.uint32) for _ in range(2))
            return watch.screen

        pygame.display.set_mode = open_window
        pygame.display.get_surface = lambda: watch.screen
        pygame.display.flip = pygame.display.update = watch._show
