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

_MOST_SKIPPED = 12  # pictures that nobody looks at, one after another
_SOON = 0.9 * FRAME  # seconds: a picture that is shown sooner after another is not looked at


class PatchedPygame:
    """Patches pygame and time. on_tick is called for each picture that the game shows, and for
    each turn of a loop that only waits for events, at most 60 times a second of the game's time.
    texts and clean are of the picture that was looked at last, changed is whether it differs from
    the one before.

    luck: a number by which this run's clock differs from that of other runs.
    """

    def __init__(self, on_tick: Callable[[], None], luck: int) -> None:
        self.time = VirtualTime(luck)
        self.time.replace_clocks()
        self.screen: pygame.Surface | None = None
        self._on_tick = on_tick
        self._lettering = Lettering()
        self._looked_at, self._skipped = -1.0, 0
        self.texts: tuple[Text, ...] = ()  # on the screen
        self.clean = self._spare = np.zeros((0, 0), np.uint32)  # its pixels without them
        self.changed = True
        self._patch_screen()
        self.keyboard = Keyboard(self.time, self._turn)

    @property
    def size(self) -> tuple[int, int]:
        return self.screen.get_size() if self.screen else (0, 0)

    def pixels(self) -> NDArray[np.uint32]:
        """Return what is on the screen, (height, width), each pixel 0xRRGGBB."""
        return self._view() & np.uint32(0xFFFFFF)

    def _view(self) -> NDArray[np.uint32]:
        if not self.screen:
            return np.zeros((0, 0), np.uint32)
        buffer: Any = self.screen.get_view("0")
        return np.frombuffer(buffer, np.uint32).reshape(self.size[::-1])

    def look(self) -> bool:
        """Read texts and clean from the screen; return whether they are others than before."""
        view, before = self._view(), self.texts
        if self._spare.shape != view.shape:
            self._spare = np.zeros(view.shape, np.uint32)
        # The system clears memory that it gives, so two pictures' worth is used in turn.
        self.clean, self._spare = np.bitwise_and(view, 0xFFFFFF, out=self._spare), self.clean
        self.texts = self._lettering.erase(self.screen, self.clean) if self.screen else ()
        return self.texts != before or not np.array_equal(self.clean, self._spare)

    def _turn(self) -> None:
        """The game waits for a key, and has perhaps drawn something that it did not show."""
        self.changed = self._skipped > 0 and self.look()
        self._skipped = 0
        self._on_tick()

    def _show(self, *_: Any, **__: Any) -> None:
        waited = self.time.now - self._looked_at
        may_skip = self._skipped < _MOST_SKIPPED
        if may_skip and 0 < waited < _SOON:
            self._skipped += 1
            self.keyboard.begin_picture()
            return
        self.changed = self.look()
        if not waited:  # no clock limits the game's speed
            if may_skip and not self.changed:
                self._skipped += 1
                return  # one picture, shown twice
            self.time.pass_(FRAME)
        self._looked_at, self._skipped = self.time.now, 0
        self.keyboard.begin_picture()
        self._on_tick()

    def _patch_screen(self) -> None:
        watch, set_mode = self, pygame.display.set_mode

        def open_window(*args: Any, **named: Any) -> pygame.Surface:
            size = set_mode(*args, **named).get_size()
            if watch.size != size or not watch.screen:
                watch.screen = watch._lettering.canvas(size, 0, 32)
            return watch.screen

        pygame.display.set_mode = open_window
        pygame.display.get_surface = lambda: watch.screen
        pygame.display.flip = pygame.display.update = watch._show
