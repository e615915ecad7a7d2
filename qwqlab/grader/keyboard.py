"""pygame's events and keys as a game in the sandbox gets them: the player's hand on the keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pygame

from .virtual_time import FRAME, VirtualTime


class Keyboard:
    """Patches pygame.event and pygame.key.

    held is the keys that are down; asked how often the game asked for events. A game that asks
    twice without a picture between waits in a loop that draws nothing: then time passes, and
    on_tick is called.
    """

    def __init__(self, time: VirtualTime, on_tick: Callable[[], None]) -> None:
        self.held: set[int] = set()
        self.asked = 0
        self._time, self._on_tick = time, on_tick
        self._asked_since_picture = 0
        self._poll = pygame.event.poll
        for name in ("get", "poll", "peek"):
            setattr(pygame.event, name, self._count(getattr(pygame.event, name)))
        pygame.event.wait = self._await
        pygame.key.get_pressed = lambda: Held(self.held)  # type: ignore[assignment, return-value]

    def begin_picture(self) -> None:
        """The game has shown a picture."""
        self._asked_since_picture = 0

    def press(self, key: int, text: str) -> None:
        """Put a key down."""
        self.held.add(key)
        values = {"key": key, "mod": 0, "unicode": text, "scancode": 0}
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, values))
        if text.isprintable() and text:
            pygame.event.post(pygame.event.Event(pygame.TEXTINPUT, {"text": text}))

    def release(self, key: int) -> None:
        """Let it up again."""
        self.held.discard(key)
        values = {"key": key, "mod": 0, "unicode": "", "scancode": 0}
        pygame.event.post(pygame.event.Event(pygame.KEYUP, values))

    def _count(self, function: Any) -> Any:
        def ask(*args: Any, **named: Any) -> Any:
            self.asked += 1
            self._asked_since_picture += 1
            if self._asked_since_picture > 1:
                self._idle()
            return function(*args, **named)

        return ask

    def _await(self, timeout: int = 0) -> Any:
        self.asked += 1
        until = self._time.now + timeout / 1000 if timeout else float("inf")
        while not (event := self._poll()) and self._time.now < until:
            self._idle()
        return event

    def _idle(self) -> None:
        self._time.pass_(FRAME)
        self._on_tick()


class Held:
    """What pygame.key.get_pressed gives: whether a key is down, by its constant."""

    def __init__(self, keys: set[int]) -> None:
        self._keys = frozenset(keys)

    def __getitem__(self, key: int) -> bool:
        return key in self._keys

    def __len__(self) -> int:
        return 512

    def __iter__(self) -> Iterator[bool]:
        return (key in self._keys for key in range(512))
