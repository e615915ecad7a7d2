"""Time for a game that no one waits for: it passes when the game sleeps, ticks or draws."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pygame

FRAME = 1 / 60


class VirtualTime:
    """Seconds since the game began, and the timers that fire as they pass."""

    def __init__(self) -> None:
        self.now = 0.0
        self._timers: dict[int, list[Any]] = {}

    def pass_(self, seconds: float) -> None:
        """Let time pass, and post the events of timers that are due."""
        self.now += max(0.0, min(float(seconds), 60.0))
        for kind, timer in list(self._timers.items()):
            event, interval, due, loops = timer
            for _ in range(8):
                if self.now < due or kind not in self._timers:
                    break
                pygame.event.post(event)
                due += interval
                loops -= 1
                if loops == 0:
                    del self._timers[kind]
            timer[2:] = [max(due, self.now), loops]

    def set_timer(self, event: Any, millis: int, loops: int = 0) -> None:
        event = pygame.event.Event(event) if isinstance(event, int) else event
        self._timers.pop(event.type, None)
        if millis > 0:
            interval = millis / 1000
            self._timers[event.type] = [event, interval, self.now + interval, loops or -1]

    def replace_clocks(self) -> None:
        """Put this time in the place of pygame's and of Python's clocks and sleeps."""
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

        class Loop(asyncio.BaseEventLoop):
            """asyncio's loop, which waits for this time and, in a sandbox, for nothing else."""

            def __init__(self) -> None:
                super().__init__()
                self._selector = self

            def select(self, timeout: float | None) -> list[Any]:
                virtual.pass_(timeout or 0)
                return []

            def _process_events(self, events: list[Any]) -> None:
                pass

            def _write_to_self(self) -> None:
                pass

        class Policy(asyncio.DefaultEventLoopPolicy):
            _loop_factory = Loop

        asyncio.set_event_loop_policy(Policy())
        began = time.time()
        pygame.time.Clock = Clock  # type: ignore[misc, assignment]
        pygame.time.get_ticks = lambda: int(1000 * virtual.now)
        pygame.time.wait = pygame.time.delay = wait
        pygame.time.set_timer = virtual.set_timer
        time.time = lambda: began + virtual.now
        time.monotonic = time.perf_counter = lambda: virtual.now
        time.sleep = virtual.pass_  # type: ignore[assignment]
