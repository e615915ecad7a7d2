"""Play a game in the sandbox: run it, press its keys, and write down what it showed.

`Player` runs inside the sandbox, in the game's own process: a game that knows this file could
forge what it writes. So it is untrusted outside, where the judge looks at the pictures itself.
"""

from __future__ import annotations

import os
import random
import re
import runpy
import signal
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pygame
from numpy.typing import NDArray

from .notes import MOST_PICTURES, MOST_TICKS, PICTURE, RECORD, Tick, write_notes
from .pixels import Blob, find_blobs
from .pygame_patch import PatchedPygame
from .scene import BirdTracker, Pipe, Scene, Text, read_scene

GAME = "game.py"
# Of processor time, which passes no faster where other programs want the processor too.
STUCK_SECONDS = 6.0
MOST_SECONDS = 20.0  # below what the sandbox allows, so that what was seen is kept
ASLEEP_SECONDS = 15.0  # of the clock, for what waits without end and takes no processor time
SLOW_SECONDS, SLOW_PICTURES = 0.5, 60  # of the game's time, between so many pictures: no game
PIPES_WANTED = 3
_KEPT = (8, 16, 30, 60, 100, 150, 200, 260, 330, 400)  # pictures of a round, for the judge
KEYS = {"space": pygame.K_SPACE, "q": pygame.K_q, "escape": pygame.K_ESCAPE}
_LOST = re.compile(r"game\s*over|best|high|you\s+(lose|lost|died)|again|restart|retry", re.I)


class Pilot:
    """Sees picture after picture of a game.

    scene and bird are those of the last; moving is whether the bird has been seen to move, still
    the number of pictures in which nothing did, passed the pipes that it got past.
    """

    def __init__(self) -> None:
        self.scene = Scene(None, None, (), ())
        self.texts: tuple[Text, ...] = ()
        self.bird: Blob | None = None
        self.moving = False
        self.still = 0
        self.passed = 0
        self._size = (0, 0)
        self._blobs: list[Blob] = []
        self._tracker = BirdTracker()
        self._tops: list[float] = []  # where the bird was in the last pictures that moved
        self._ahead: list[Pipe] = []
        self._gravity = 0.5  # pixels a picture, a picture

    def see(self, texts: tuple[Text, ...], pixels: NDArray[np.uint32], changed: bool) -> None:
        """Take in a picture: its texts, its pixels (height, width), and whether it is another."""
        before = self.scene.pipes, self.bird
        height, width = pixels.shape
        self._size, self.texts = (width, height), texts
        if changed:
            self._blobs = find_blobs(pixels)
        self.scene = read_scene(self._blobs, width, height, texts, self.bird)
        self.bird, self.moving = self._tracker.follow(self.scene.small, width)
        self._count_passed()
        same = before == (self.scene.pipes, self.bird)
        if not same:  # a picture may be shown twice for each step that the bird takes
            self._tops = [*self._tops[-2:], self.bird.y] if self.bird else []
        self.still = self.still + 1 if same or not self.bird else 0

    def note(self, phase: str) -> Tick:
        """Return what the judge is to know of the last picture."""
        return Tick(phase, self.bird, self.moving, self.scene.pipes, self.texts, self.passed)

    def forget(self) -> None:
        """Begin a new round, in which the bird may be another one."""
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
        """Return whether the bird, left alone, sinks below the line that it should keep above."""
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


class Player:
    """One run of the game. plan: the fields of a PlayPlan.

    seconds: after so many of the clock it is left, wherever it is.
    """

    def __init__(self, plan: dict[str, Any], seconds: float) -> None:
        self._plan, self._seconds = plan, seconds
        # As they are before the game's time is put in their place.
        self._sleep, self._clock, self._work = time.sleep, time.monotonic, time.process_time
        self._exit = os._exit
        self._pygame = PatchedPygame(self._tick, plan["seed"])
        self._pilot = Pilot()
        self._script = self._follow_plan()
        self._phase = "start"
        self._first_texts: set[str] = set()
        self._log: list[Tick] = []
        self._pictures: dict[int, str] = {}  # those kept, by their place in the log
        self._n_ticks = self._n_slow = 0
        self._shown_at = self._pygame.time.now  # in the game's own time
        self._pressed_at = -9
        self._began = self._clock()
        self._alive_at = self._clock(), self._work()

    def run(self) -> NoReturn:
        """Run the game to the end of the plan, or to its own, and end this process."""
        threading.Thread(target=self._watch_for_standstill, daemon=True).start()
        random.seed(self._plan["seed"])
        sys.argv = [GAME]
        os._exit = self._leave
        signal.signal(signal.SIGTERM, lambda number, _: self._leave(number))
        try:
            runpy.run_path(GAME, run_name="__main__")
            self._finish("exit", "the program came to its end")
        except SystemExit as end:
            hidden = end.__context__  # an exit in `finally` hides the error that led to it
            why = f", after {_explain(hidden)}" if isinstance(hidden, Exception) else ""
            self._finish("exit", f"the program exited{why}")
        except BaseException as error:  # noqa: BLE001 - whatever the game raises is what is told
            self._finish("error", _explain(error))

    def _leave(self, status: int) -> NoReturn:
        self._finish("exit", "the program ended its process")

    def _finish(self, ended: str, detail: str) -> NoReturn:
        end = {
            "ended": ended,
            "detail": detail[:500],
            "phase": self._phase,
            "size": self._pygame.size,
            "asked": self._pygame.keyboard.asked,
            "pictures": list(self._pictures.items()),
        }
        Path(RECORD).write_text("\n".join(write_notes(end, self._log)), encoding="utf-8")
        self._exit(0)

    def _watch_for_standstill(self) -> None:
        main = threading.main_thread().ident or 0
        while True:
            self._sleep(0.25)
            clock, work = self._clock(), self._work()
            if work > MOST_SECONDS or clock - self._began > self._seconds:
                self._finish("left", f"left after {work:.0f} s of processor time")
            asleep, worked = clock - self._alive_at[0], work - self._alive_at[1]
            if worked > STUCK_SECONDS or asleep > ASLEEP_SECONDS:
                frame = sys._current_frames().get(main)
                while frame and frame.f_code.co_filename != GAME:
                    frame = frame.f_back
                where = f" at line {frame.f_lineno}" if frame else ""
                self._finish("stuck", f"no picture and no event for {asleep:.0f} s{where}")

    def _tick(self) -> None:
        """The game has shown a picture, or waits for a key: look, write down, go on."""
        self._alive_at = self._clock(), self._work()
        if threading.current_thread() is not threading.main_thread():
            return
        self._n_ticks += 1
        shown = self._pygame
        waited, self._shown_at = shown.time.now - self._shown_at, shown.time.now
        self._n_slow += waited > SLOW_SECONDS
        if waited > ASLEEP_SECONDS or self._n_slow > SLOW_PICTURES:
            self._finish("stuck", f"it sleeps {waited:.0f} s of its own time between two pictures")
        self._pilot.see(shown.texts, shown.clean, shown.changed)
        self._log.append(self._pilot.note(self._phase))
        self._pygame.keyboard.release()
        if self._n_ticks > MOST_TICKS or next(self._script, "over") == "over":
            self._finish("script", "the plan was played to its end")

    def _press(self, name: str) -> None:
        keyboard = self._pygame.keyboard
        if KEYS[name] in keyboard.held or self._n_ticks - self._pressed_at < 2:
            return  # a key that stays down is no second press
        self._pressed_at = self._n_ticks
        keyboard.press(KEYS[name])
        self._log[-1].key = name

    def _keep(self, name: str = "") -> None:
        """Keep this picture for the judge; name is the one under which it is shown."""
        if self._pygame.screen and len(self._pictures) < MOST_PICTURES:
            at = len(self._log) - 1
            pixels = self._pygame.pixels().astype(">u4").tobytes()
            Path(PICTURE.format(at)).write_bytes(zlib.compress(pixels, 1))
            self._pictures[at] = name

    def _follow_plan(self) -> Iterator[None]:
        yield from self._wait(8)
        self._keep("start")
        if self._plan["when"] == "look":
            for _ in range(3):
                for _ in range(2):
                    self._press("space")
                    yield from self._wait(10)
                self._keep()
            return
        yield from self._play("play", 2400, PIPES_WANTED)
        if self._plan["when"] == "play":
            yield from self._quit("play")
            return
        yield from self._lose("over")
        for phase, ticks in (("again", 900), ("third", 30)):
            self._phase = "restart"
            yield from self._restart()
            yield from self._play(phase, ticks, 1)
            yield from self._lose(f"over {phase}")
        yield from self._quit("over")

    def _wait(self, ticks: int) -> Iterator[None]:
        for _ in range(ticks):
            yield

    def _play(self, phase: str, ticks: int, wanted: int) -> Iterator[None]:
        """Press SPACE as a player would, until the bird has passed some pipes or is lost."""
        self._phase, self._pilot.passed = phase, 0
        self._pilot.still = 0
        self._press("space")
        yield
        self._first_texts = self._read_texts()
        started, left = False, 40  # pictures to go on for: the score may change after the pipe
        for tick in range(ticks):
            if self._is_lost():
                break
            started = started or not self._pilot.still
            waits_for_another_key = not started and self._pilot.still in (15, 30)
            if waits_for_another_key or self._pilot.wants_up():
                self._press("space")
            yield
            if tick in _KEPT:
                in_sight = any(
                    0 < p.x < 0.8 * self._pygame.size[0] for p in self._pilot.scene.pipes
                )
                self._keep(phase if in_sight else "")
            left -= self._pilot.passed >= wanted
            if not left:
                break
        self._keep("" if phase in self._pictures.values() else phase)

    def _lose(self, phase: str) -> Iterator[None]:
        """Let the bird fall until the game says that it is lost."""
        self._phase = "falling"
        for _ in range(500):
            if self._is_lost():
                break
            yield
        else:
            self._phase = "never lost"
        if self._phase == "falling":
            self._phase = phase
        yield from self._wait(60)
        self._keep(phase)

    def _restart(self) -> Iterator[None]:
        for _ in range(3):
            self._press("space")
            self._pilot.still = 0
            yield from self._wait(12)
            if self._pilot.still < 6 and self._pilot.bird and not self._is_lost():
                break
        self._pilot.forget()

    def _quit(self, when: str) -> Iterator[None]:
        yield from self._wait(2)  # a key is not pressed right after another
        self._phase = f"quit {when} {self._plan['key']}"
        for _ in range(2):
            self._press(self._plan["key"])
            yield from self._wait(45)
        self._phase = f"stayed {when} {self._plan['key']}"

    def _read_texts(self) -> set[str]:
        return {re.sub(r"\d+", "#", text.words) for text in self._pilot.texts}

    def _is_lost(self) -> bool:
        """Return whether nothing has moved for a while, or a new text says that it is over."""
        new = self._read_texts() - self._first_texts
        return self._pilot.still >= 45 or (
            self._pilot.still >= 3 and any(_LOST.search(text) for text in new)
        )


def _explain(error: BaseException) -> str:
    """Return the error, and the line of the game that raised it."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == GAME]
    where = f"line {lines[-1]}: " if lines else ""
    text = str(error).replace(os.getcwd(), "the game's folder")  # noqa: PTH109 - as pygame says it
    return f"{where}{type(error).__name__}: {text[:300]}"
