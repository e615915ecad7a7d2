"""pygame's clock and keys as a game in the sandbox gets them: the player's hand on both.

Time passes only when the game sleeps, ticks, draws or asks for events, so nobody waits for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pygame

FRAME = 1 / 60


class VirtualTime:
    """Seconds since pygame began, and the timers that fire as they pass.

    luck: a number by which the clock differs from that of other runs, as if begun at another time.
    """

    def __init__(self, luck: int) -> None:
        self.now = 0.3 + 0.0137 * luck
        self._began = time.time() + 1009.0 * luck
        self._timers: dict[int, tuple[Any, float, float, int]] = {}

    def pass_(self, seconds: float) -> None:
        """Let time pass, and post the events of timers that are due."""
        self.now += max(0.0, min(float(seconds), 60.0))
        for kind, (event, interval, due, loops) in list(self._timers.items()):
            if self.now >= due:
                pygame.event.post(event)
                self._timers[kind] = event, interval, max(due + interval, self.now), loops - 1
                if loops == 1:
                    del self._timers[kind]

    def set_timer(self, event: Any, millis: int, loops: int = 0) -> None:
        event = pygame.event.Event(event) if isinstance(event, int) else event
        self._timers.pop(event.type, None)
        if millis > 0:
            interval = millis / 1000
            self._timers[event.type] = event, interval, self.now + interval, loops or -1

    def replace_clocks(self) -> None:
        """Replace the clocks and sleeps of pygame and of Python by this time."""
        virtual = self

        class Clock:
            def __init__(self) -> None:
                self._last, self._took = virtual.now, 0

            def tick(self, framerate: float = 0) -> int:
                frame = 1 / framerate if framerate and framerate > 0 else FRAME
                virtual.pass_(max(0.0, self._last + frame - virtual.now))
                self._took = round(1000 * (virtual.now - self._last))
                self._last = virtual.now
                return self._took

            tick_busy_loop = tick

            def get_time(self) -> int:
                return self._took

            get_rawtime = get_time

            def get_fps(self) -> float:
                return 1000 / self._took if self._took else 60.0

        def wait(milliseconds: int) -> int:
            virtual.pass_(milliseconds / 1000)
            return int(milliseconds)

        async def sleep(delay: float, result: Any = None) -> Any:
            virtual.pass_(delay)
            return result

        def run(game: Coroutine[Any, Any, Any], **_: Any) -> Any:
            """Run a coroutine that waits for `sleep` alone: asyncio's own loop needs a socket."""
            try:
                game.send(None)
            except StopIteration as end:
                return end.value
            raise RuntimeError("the game awaits something else than asyncio.sleep")

        asyncio.sleep, asyncio.run = sleep, run  # type: ignore[assignment]
        pygame.time.Clock = Clock  # type: ignore[misc, assignment]
        pygame.time.get_ticks = lambda: int(1000 * virtual.now)
        pygame.time.wait = pygame.time.delay = wait
        pygame.time.set_timer = virtual.set_timer
        time.time = lambda: virtual._began + virtual.now
        time.monotonic = time.perf_counter = lambda: virtual.now
        time.time_ns = lambda: int(1e9 * time.time())
        time.monotonic_ns = time.perf_counter_ns = lambda: int(1e9 * virtual.now)
        time.sleep = virtual.pass_  # type: ignore[assignment]


_SCANCODES = {
    pygame.K_SPACE: pygame.KSCAN_SPACE,
    pygame.K_q: pygame.KSCAN_Q,
    pygame.K_ESCAPE: pygame.KSCAN_ESCAPE,
}
# Within one picture. A game that asks more often as time passes, or much more often while none
# passes, waits for a key and draws nothing.
_QUESTIONS, _MOST_QUESTIONS = 4, 16
_PATIENCE = 3 * FRAME  # seconds after a picture: a timer may yet have the next one drawn


class Keyboard:
    """Patches pygame.event and pygame.key.

    held is the keys that are down; asked how often the game asked for events. In a loop that waits
    for a key and draws nothing, time passes and on_tick is called, once the loop has drawn nothing
    for a while.
    """

    def __init__(self, time: VirtualTime, on_tick: Callable[[], None]) -> None:
        self.held: set[int] = set()
        self.asked = 0
        self._pressed: set[int] = set()  # since the last picture, as are those released
        self._released: set[int] = set()
        self._coming: list[Any] = []  # what the game gets when it asks next
        self._time, self._on_tick = time, on_tick
        self._asked_at, self._questions = -1.0, 0  # in this picture
        self._idle_from = 0.0
        self._poll = pygame.event.poll
        for name in ("get", "poll", "peek", "pump"):
            setattr(pygame.event, name, self._count(getattr(pygame.event, name)))
        pygame.event.clear = self._count(pygame.event.clear, delivers=False)
        pygame.event.wait = self._await
        pygame.key.get_pressed = lambda: _list_keys(self.held)
        pygame.key.get_just_pressed = lambda: _list_keys(self._pressed)
        pygame.key.get_just_released = lambda: _list_keys(self._released)

    def begin_picture(self) -> None:
        """The game has shown a picture."""
        self._questions = 0
        self._idle_from = self._time.now + _PATIENCE
        self._pressed, self._released = set(), set()

    def press(self, key: int) -> None:
        """Put a key down; its constant is the code of its character."""
        self.held.add(key)
        self._pressed.add(key)
        self._send(pygame.KEYDOWN, key, unicode=chr(key))
        if chr(key).isprintable():
            self._coming.append(pygame.event.Event(pygame.TEXTINPUT, text=chr(key)))

    def release(self) -> None:
        """Let every key up again."""
        for key in self.held:
            self._send(pygame.KEYUP, key, unicode=chr(key))
        self._released, self.held, self._pressed = self.held, set(), set()

    def _send(self, kind: int, key: int, unicode: str) -> None:
        values = {"key": key, "mod": 0, "unicode": unicode, "scancode": _SCANCODES[key]}
        self._coming.append(pygame.event.Event(kind, values))

    def _deliver(self) -> None:
        for event in self._coming:
            pygame.event.post(event)
        self._coming.clear()

    def _count(self, function: Any, delivers: bool = True) -> Any:
        def ask(*args: Any, **named: Any) -> Any:
            self.asked += 1
            self._questions += 1
            if self._questions == 1:
                self._asked_at = self._time.now
            elif self._questions > _QUESTIONS and self._time.now > self._asked_at:
                self._idle()
            elif self._questions > _MOST_QUESTIONS:
                self._time.pass_(FRAME)
                self._idle()
            if delivers:
                self._deliver()
            return function(*args, **named)

        return ask

    def _await(self, timeout: int = 0) -> Any:
        self.asked += 1
        until = self._time.now + timeout / 1000 if timeout else float("inf")
        self._deliver()
        while not (event := self._poll()) and self._time.now < until:
            self._time.pass_(FRAME)
            self._idle()
            self._deliver()
        return event

    def _idle(self) -> None:
        self._asked_at, self._questions = self._time.now, _QUESTIONS
        if self._time.now >= self._idle_from:
            self._idle_from = self._time.now + 0.9 * FRAME
            self._on_tick()


def _list_keys(held: set[int]) -> Any:
    """Return whether each key is down, as pygame does: by its constant."""
    codes = {_SCANCODES[key] for key in held}
    return pygame.key.ScancodeWrapper([code in codes for code in range(512)])
