"""A game played in the sandbox, each time by another plan, and the records of what it showed.

The player writes a record inside the sandbox, where the game could have forged it: it is read as
untrusted data.
"""

from __future__ import annotations

import json
import math
import threading
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from ..sandbox import Isolation, Limits, Outcome, run_python
from .scene import Color, Mark, Pipe, Tick, name_shape


@dataclass(frozen=True)
class PlayPlan:
    """How a game is played. key should end it, and is pressed `when` it is in "play" or "over".

    If `when` is "look" it is only looked at for a moment, and no key is pressed to end it.
    """

    seed: int
    key: str = "q"
    when: str = "over"


@dataclass(frozen=True)
class GameRecord:
    """One run of a game.

    ended is "exit" (the program ended), "error" (it raised), "stuck" (it showed nothing and asked
    for nothing), "script" (the plan was played to its end) or "killed" (by the sandbox; detail says
    why). size is the window's, in pixels; asked counts how often the game asked for events.
    """

    plan: PlayPlan
    ended: str
    detail: str
    phase: str = "start"
    size: tuple[int, int] = (0, 0)
    asked: int = 0
    ticks: tuple[Tick, ...] = ()
    pictures: tuple[tuple[str, bytes], ...] = ()

    @property
    def quit_by_key(self) -> bool:
        """Return whether the program ended when the plan's key was pressed."""
        return self.ended in ("exit", "error") and self.phase.startswith("quit")

    def in_phase(self, *phases: str) -> list[Tick]:
        """Return the ticks of these phases."""
        return [tick for tick in self.ticks if tick.phase in phases]

    def rounds(self) -> list[list[Tick]]:
        """Return the ticks of each round: up to the first loss, and after the restart."""
        first = self.in_phase("start", "play", "falling", "over", "never lost")
        return [part for part in (first, self.in_phase("again", "over again")) if part]


# One run may take all the time that is left. What is kept short is its processor time, which is the
# same on a busy machine.
_CPU_SECONDS = 18
# Four runs that are lost and quit, each with another key, and six looks at other luck.
PLANS = (
    PlayPlan(1, key="q", when="over"),
    PlayPlan(2, key="escape", when="over"),
    PlayPlan(3, key="q", when="play"),
    PlayPlan(4, key="escape", when="play"),
    *(PlayPlan(seed, when="look") for seed in range(5, 11)),
)
# A package inside, so that a game's own `import player` doesn't find the lab's.
_START = """
import os, sys
os.environ |= {"SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy"}
os.environ["PYGAME_HIDE_SUPPORT_PROMPT"] = "1"
sys.path.insert(0, "lab.zip")
from grader.player import Player
"""
_SHIPPED = ("scene.py", "pygame_time.py", "pygame_patch.py", "player.py")

Tell = Callable[[str], None]


def play_game(
    source: str, minimum: str, tell: Tell, stop: threading.Event | None, until: float
) -> tuple[list[GameRecord], Isolation]:
    """Play by every plan, two at a time; the first alone, since a broken game need not go on.

    until: the time.monotonic() at which all must be over. A run for which no time is left is
    dropped: it says nothing of the game.
    """
    first, outcome = _play_once(source, PLANS[0], minimum, until - time.monotonic(), stop)
    records = [first]
    if not first.ticks or first.ended in ("stuck", "killed"):
        return records, outcome.isolation
    tell(f"Seed {PLANS[0].seed} played ({outcome.seconds:.1f} s); {len(PLANS) - 1} more ...")

    def play_by(plan: PlayPlan) -> GameRecord | None:
        left = until - time.monotonic()
        if left < 2 or (stop and stop.is_set()):
            return None
        record, outcome = _play_once(source, plan, minimum, left, stop)
        return None if record.ended == "killed" and outcome.seconds >= left else record

    with ThreadPoolExecutor(2) as pool:
        records += [record for record in pool.map(play_by, PLANS[1:]) if record]
    return records, outcome.isolation


def _play_once(
    source: str, plan: PlayPlan, minimum: str, seconds: float, stop: threading.Event | None
) -> tuple[GameRecord, Outcome]:
    start = f"{_START}Player({asdict(plan)}, {seconds - 1}).run()\n"
    outcome = run_python(
        {"main.py": start, "game.py": source, "lab.zip": _pack()},
        "main.py",
        limits=Limits(seconds, _CPU_SECONDS),
        minimum=minimum,
        stop=stop,
    )
    return read_record(plan, outcome), outcome


def _pack() -> bytes:
    """Return the player and what it needs, zipped as the package `grader`."""
    here, packed = Path(__file__).parent, BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("grader/__init__.py", "")
        for name in _SHIPPED:
            file.writestr(f"grader/{name}", (here / name).read_text(encoding="utf-8"))
    return packed.getvalue()


def read_record(plan: PlayPlan, outcome: Outcome) -> GameRecord:
    """Return the record that the player wrote; "killed" if there is none that can be read."""
    if "record.json" not in outcome.files:
        return GameRecord(plan, "killed", outcome.reason)
    try:
        values = json.loads(outcome.files["record.json"])
        width, height = map(int, values["size"])
        return GameRecord(
            plan,
            str(values["ended"]),
            str(values["detail"])[:500],
            str(values["phase"]),
            (width, height),
            int(values["asked"]),
            tuple(map(_read_tick, values["log"])),
            tuple(
                (name.removesuffix(".png"), data)
                for name, data in outcome.files.items()
                if name.endswith(".png") and data.startswith(b"\x89PNG")
            ),
        )
    except Exception as error:  # noqa: BLE001 - a game may have written anything there
        return GameRecord(plan, "killed", f"the record of the game cannot be read: {error!r}")


def _read_tick(values: list[Any]) -> Tick:
    phase, background, land, bird, moving, pipes, texts, passed, key = values
    if bird:
        name_shape(_read_mark(bird))  # raises for what has no size or shape
    return Tick(
        str(phase),
        _color(background) if background else None,
        _read_mark(land) if land else None,
        _read_mark(bird) if bird else None,
        bool(moving),
        tuple(map(_read_pipe, pipes)),
        tuple(map(_read_mark, texts)),
        int(passed),
        str(key),
    )


def _read_mark(values: list[Any]) -> Mark:
    kind, color, *box, detail, _ = values
    x, y, w, h = map(_number, box)
    return Mark(str(kind), _color(color), x, y, w, h, str(detail)[:80])


def _read_pipe(values: list[Any]) -> Pipe:
    *places, color = values
    x, w, top, bottom = map(_number, places)
    return Pipe(x, w, top, bottom, _color(color))


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value} is no place on a screen")
    return number


def _color(value: Any) -> Color:
    r, g, b = (min(255, max(0, int(part))) for part in value)
    return r, g, b
