"""A game played several times in the sandbox, each time by another plan: the records of it."""

from __future__ import annotations

import json
import threading
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path

from ..sandbox import Isolation, Limits, Outcome, run_python
from .game_record import GameRecord, Plan, read_record

# One run may take all the time that is left: what is held short is its processor time, which is the
# same on a busy machine.
LIMITS = Limits(cpu_seconds=18)
# Four runs that are lost and quit, each with another key, and six looks at other luck.
PLANS = (
    Plan(1, key="q", when="over"),
    Plan(2, key="escape", when="over"),
    Plan(3, key="q", when="play"),
    Plan(4, key="escape", when="play"),
    *(Plan(seed, goal="look") for seed in range(5, 11)),
)
_START = "import sys\nsys.path.insert(0, 'lab.zip')\nfrom grader.player import main\nmain()\n"
_SHIPPED = (
    "extents.py",
    "colors.py",
    "scene.py",
    "virtual_time.py",
    "keyboard.py",
    "watched.py",
    "pilot.py",
    "player.py",
)
_ENVIRONMENT = {
    "SDL_VIDEODRIVER": "dummy",
    "SDL_AUDIODRIVER": "dummy",
    "PYGAME_HIDE_SUPPORT_PROMPT": "1",
}

Tell = Callable[[str], None]


def play(
    source: str, minimum: str, tell: Tell, stop: threading.Event | None, until: float
) -> tuple[list[GameRecord], Isolation]:
    """Play by every plan, two at a time; the first alone, since a broken game need not go on.

    until: when time.monotonic() says that, all is over. A run for which there is no time left is
    left out: it says nothing of the game.
    """
    first, outcome = _play_once(source, PLANS[0], minimum, until - time.monotonic(), stop)
    records = [first]
    if not first.ticks or first.ended in ("stuck", "killed"):
        return records, outcome.isolation
    tell(f"Seed {PLANS[0].seed} played ({outcome.seconds:.1f} s); {len(PLANS) - 1} more ...")

    def play_by(plan: Plan) -> GameRecord | None:
        left = until - time.monotonic()
        if left < 2 or (stop and stop.is_set()):
            return None
        record, outcome = _play_once(source, plan, minimum, left, stop)
        return None if record.ended == "killed" and outcome.seconds >= left else record

    with ThreadPoolExecutor(2) as pool:
        records += [record for record in pool.map(play_by, PLANS[1:]) if record]
    return records, outcome.isolation


def _play_once(
    source: str, plan: Plan, minimum: str, seconds: float, stop: threading.Event | None
) -> tuple[GameRecord, Outcome]:
    outcome = run_python(
        {"main.py": _START, "game.py": source, "lab.zip": _pack()},
        "main.py",
        args=[json.dumps(asdict(plan)), str(seconds - 1)],
        limits=replace(LIMITS, seconds=seconds),
        environment=_ENVIRONMENT,
        minimum=minimum,
        stop=stop,
    )
    record = outcome.files.get("record.json")
    if record is None:
        return GameRecord(plan, "killed", outcome.reason), outcome
    pictures = {
        name.removesuffix(".png"): data
        for name, data in outcome.files.items()
        if name.endswith(".png")
    }
    try:
        return read_record(record, plan, pictures), outcome
    except ValueError as error:
        return GameRecord(plan, "killed", str(error)), outcome


def _pack() -> bytes:
    """The player and what it needs, as the package that the game's process imports."""
    here, packed = Path(__file__).parent, BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("grader/__init__.py", "")
        for name in _SHIPPED:
            file.writestr(f"grader/{name}", (here / name).read_text(encoding="utf-8"))
    return packed.getvalue()
