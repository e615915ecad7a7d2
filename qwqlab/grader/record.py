"""A game played in the sandbox, each time by another plan, and the records of what it showed.

The player writes notes and keeps pictures inside the sandbox, where the game could have forged
them. The pictures are looked at here, so what they show rests on no word of the game's process; how
things moved between them, what was written and which keys it took does.
"""

from __future__ import annotations

import math
import struct
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np

from ..sandbox import Isolation, Limits, Outcome, run_python
from .notes import PICTURE, RECORD, Tick, read_notes
from .pixels import Box, Color, Pixels, find_blobs, name_shape
from .scene import read_scene


@dataclass(frozen=True)
class PlayPlan:
    """How a game is played. key should end it, and is pressed `when` it is in "play" or "over".

    If `when` is "look" it is only looked at for a moment, and no key is pressed to end it.
    """

    seed: int
    key: str = "q"
    when: str = "over"


@dataclass(frozen=True)
class Look:
    """What the lab sees in one picture.

    moving: the bird was noted at other heights shortly before and after it. bird is its shape and
    colour, pipes the colours of those that are whole. None and nothing stand for what is not seen.
    """

    phase: str
    moving: bool
    background: Color | None
    land: Color | None
    bird: tuple[str, Color] | None
    pipes: tuple[Color, ...]


@dataclass(frozen=True)
class GameRecord:
    """One run of a game.

    ticks is what the player noted, looks what the lab sees in the pictures that it kept, and
    pictures those that are shown, by name, as PNG.

    ended is "exit" (the program ended), "error" (it raised), "stuck" (it showed nothing and asked
    for nothing), "script" (the plan was played to its end), "left" (there was no time to play on)
    or "killed" (by the sandbox; detail says why). size is the window's, in pixels; asked counts how
    often the game asked for events.
    """

    plan: PlayPlan
    ended: str
    detail: str
    phase: str = "start"
    size: tuple[int, int] = (0, 0)
    asked: int = 0
    ticks: tuple[Tick, ...] = ()
    looks: tuple[Look, ...] = ()
    pictures: tuple[tuple[str, bytes], ...] = ()

    @property
    def quit_by_key(self) -> bool:
        """Return whether the program ended when the plan's key was pressed."""
        pressed = any(tick.key == self.plan.key for tick in self.ticks[-100:])
        return self.ended in ("exit", "error") and self.phase.startswith("quit") and pressed

    @property
    def stayed(self) -> bool:
        """Return whether it went on when the plan's key was pressed."""
        return self.phase.startswith("stayed")

    def in_phase(self, *phases: str) -> list[Tick]:
        """Return the ticks of these phases."""
        return [tick for tick in self.ticks if tick.phase in phases]

    def rounds(self) -> list[list[Look]]:
        """Return the looks at each round that was played, before it was lost."""
        phases = ("start", "play"), ("again",), ("third",)
        parts = [[look for look in self.looks if look.phase in each] for each in phases]
        return list(filter(None, parts))


# One run may take all the time that is left. What is kept short is its processor time, which is the
# same on a busy machine.
_CPU_SECONDS = 23
_MOST_PICTURE = 32 << 20  # bytes
_STEP_TICKS = 6  # a game may draw so often while its bird takes one step
_LOOKING_SECONDS = 5.0  # at the pictures of one run; those of a game take a tenth of that
# Four runs that are lost and quit, each with another key, and eight looks at other luck. If time
# runs short, those at the end are left out, which say least.
PLANS = (
    PlayPlan(1, key="q", when="over"),
    PlayPlan(2, key="escape", when="over"),
    *(PlayPlan(seed, when="look") for seed in range(5, 13)),
    PlayPlan(3, key="q", when="play"),
    PlayPlan(4, key="escape", when="play"),
)
# A package inside, so that a game's own `import player` doesn't find the lab's.
_START = """
import os, sys
os.environ |= {"SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy"}
os.environ["PYGAME_HIDE_SUPPORT_PROMPT"] = "1"
sys.path.insert(0, "lab.zip")
from grader.player import Player
"""
_SHIPPED = (
    "pixels.py", "scene.py", "notes.py", "lettering.py", "pygame_time.py", "pygame_patch.py",
    "player.py",
)  # fmt: skip

Tell = Callable[[str], None]


def count_whole(records: Sequence[GameRecord]) -> int:
    """Return how many runs came to their end in the time that they had."""
    return sum(record.ended not in ("left", "stuck", "killed") for record in records)


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
    return read_record(plan, outcome, time.monotonic() + _LOOKING_SECONDS), outcome


def _pack() -> bytes:
    """Return the player and what it needs, zipped as the package `grader`."""
    here, packed = Path(__file__).parent, BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("grader/__init__.py", "")
        for name in _SHIPPED:
            file.writestr(f"grader/{name}", (here / name).read_text(encoding="utf-8"))
    return packed.getvalue()


def read_record(plan: PlayPlan, outcome: Outcome, until: float = math.inf) -> GameRecord:
    """Return the record that the player wrote; "killed" if there is none that can be read.

    After the time.monotonic() until, no more pictures are looked at.
    """
    if RECORD not in outcome.files:
        return GameRecord(plan, "killed", outcome.reason)
    try:
        end, ticks = read_notes(outcome.files[RECORD])
        _refuse_what_cannot_be(plan, end["ended"], end["phase"], ticks)
        looks: list[Look] = []
        pictures: dict[str, bytes] = {}
        shown: list[bool] = []  # whether there is something where the notes say so
        for at, name in sorted(end["pictures"].items()):
            if looks and time.monotonic() > until:
                break
            pixels = _read_picture(outcome.files[PICTURE.format(at)], *end["size"])
            looks.append(_look_at(pixels, ticks, at))
            noted = [*ticks[at].texts, *([ticks[at].bird] if ticks[at].bird else [])]
            shown += [_is_drawn(pixels, box) for box in noted if box]
            if name and name not in pictures:
                pictures[name] = _write_png(pixels)
        if len(ticks) > 10 and not looks:
            raise ValueError("no picture was kept")
        if sum(shown) < 0.5 * len(shown):
            raise ValueError("its pictures show nothing of what its notes say")
    except Exception as error:  # noqa: BLE001 - a game may have written anything there
        why = f"the record of the game cannot be read: {type(error).__name__}: {error}"
        return GameRecord(plan, "killed", why[:300])
    return GameRecord(
        plan,
        end["ended"],
        " ".join(end["detail"].split()),
        end["phase"],
        end["size"],
        end["asked"],
        ticks,
        tuple(looks),
        tuple(pictures.items()),
    )


def _refuse_what_cannot_be(plan: PlayPlan, ended: str, phase: str, ticks: tuple[Tick, ...]) -> None:
    """Raise ValueError for notes that no player makes who plays by this plan."""
    phases = ["start"]
    if plan.when == "play":
        phases += ["play"]
    elif plan.when == "over":
        phases += ["play", "falling", "never lost", "restart"]
        phases += ["over", "again", "over again", "third", "over third"]
    phases += [f"{what} {plan.when} {plan.key}" for what in ("quit", "stayed")]
    if ended not in ("exit", "error", "stuck", "script", "left"):
        raise ValueError("an end that the player does not know")
    if any(t.phase not in phases for t in ticks) or phase not in phases:
        raise ValueError("something that was not in the plan")
    for before, tick in pairwise(ticks):
        if before.phase == tick.phase and not 0 <= tick.passed - before.passed <= 1:
            raise ValueError("two pipes passed in one picture")
        if before.key and tick.key:
            raise ValueError("keys that were not pressed")
    pressed = {t.key for t in ticks} - {"", "space"}
    if pressed - {plan.key} or (pressed and plan.when == "look"):
        raise ValueError("a key that was not pressed")


def _read_picture(data: bytes, width: int, height: int) -> Pixels:
    """Return the pixels of a kept picture: (height, width), each 0xRRGGBB."""
    size = 4 * width * height
    if size > _MOST_PICTURE:
        raise ValueError(f"a picture of {width} x {height} pixels")
    pixels = zlib.decompressobj().decompress(data, size + 1)
    if len(pixels) != size or not size:
        raise ValueError("a picture of another size than the window's")
    return np.frombuffer(pixels, ">u4").reshape(height, width).astype(np.uint32)


def _look_at(pixels: Pixels, ticks: tuple[Tick, ...], at: int) -> Look:
    """Return what one picture shows. ticks tell where the bird was, and where text is."""
    tick = ticks[at]
    height, width = pixels.shape
    scene = read_scene(find_blobs(pixels), width, height, tick.texts, tick.bird)
    bird = None
    if box := tick.bird:
        here = [b for b in scene.small if box.covers(b, 4) and b.covers(box, 4)]
        nearest = max(here, key=lambda b: b.n, default=None)
        bird = (name_shape(pixels, nearest, scene.background), nearest.color) if nearest else None
    return Look(
        tick.phase,
        tick.moving and _is_between_heights(ticks, at),
        scene.background,
        scene.land.color if scene.land else None,
        bird,
        tuple(p.color for p in scene.pipes if p.color and p.x > 1 and p.right < width - 1),
    )


def _is_between_heights(ticks: tuple[Tick, ...], at: int) -> bool:
    """Return whether the bird was noted at other heights shortly before and after this tick."""
    here = ticks[at].bird
    sides = ticks[max(0, at - _STEP_TICKS) : at], ticks[at + 1 : at + 1 + _STEP_TICKS]
    return here is not None and all(
        any(t.bird and t.bird.y != here.y for t in side) for side in sides
    )


def _is_drawn(pixels: Pixels, box: Box) -> bool:
    """Return whether a place and its edge are of more than one colour."""
    top, left = max(0, int(box.y) - 2), max(0, int(box.x) - 2)
    part = pixels[top : max(0, int(box.bottom) + 2), left : max(0, int(box.right) + 2)]
    return bool(part.size and part.min() != part.max())


def _write_png(pixels: Pixels) -> bytes:
    """Return a picture as PNG, so that what is shown is of the lab's own writing."""
    height, width = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each begins with its filter: none
    rows[:, 1:] = np.stack([pixels >> 16, pixels >> 8, pixels], axis=-1).reshape(height, -1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    packed = zlib.compress(rows.tobytes(), 6)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*each) for each in ((b"IHDR", head), (b"IDAT", packed), (b"IEND", b""))
    )
