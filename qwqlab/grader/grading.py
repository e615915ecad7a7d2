"""Grade an answer to the article's prompt: find its program, check it, play it, and judge it.

The stages in their order are extract, parse, names, imports and run; then the eight requirements
are judged by observation. A verdict passes only if every stage and every requirement does, and is
always shown with them. The program runs in the sandbox alone; this process only reads it.
"""

from __future__ import annotations

import codecs
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import SettingError
from ..experiments import check_code
from ..files import read_bytes
from ..sandbox import Isolation, probe
from .answer import extract_program
from .imports import check_imports
from .record import PLANS, GameRecord, Tell, count_whole, play_game
from .rules import Requirement, judge_game

STAGES = ("extract", "parse", "names", "imports", "run")
_FRAMES = ("start", "play", "over", "again", "over again")
_MOST_BYTES = 20_000_000
_BUDGET = 50.0  # seconds for all of it, so that any input is done within a minute


@dataclass(frozen=True)
class Stage:
    """One stage: whether it held, and what was seen."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class Grade:
    """What became of an answer.

    frames holds pictures of the game as PNG, by name ("start", "play", "over", "again"); pictures
    counts those that the lab looked at.
    """

    stages: tuple[Stage, ...]
    requirements: tuple[Requirement, ...]
    isolation: Isolation
    frames: tuple[tuple[str, bytes], ...] = ()
    pictures: int = 0

    @property
    def rests_on(self) -> dict[str, str]:
        """Return what the verdict rests on: what the lab saw, and the word of the program."""
        return {
            "the lab": f"shapes and colours, looked at in {self.pictures} pictures of the game",
            "the program": "that those are its pictures, how things moved, what was written and "
            "which keys it took: noted in its own process, which could forge them",
        }

    @property
    def verdict(self) -> str:
        """ "pass" if every stage and every requirement holds; "not judged" if none is missed, but
        time ran out before all could be judged; else "fail"."""
        found = {stage.ok for stage in self.stages} | {each.ok for each in self.requirements}
        return "fail" if False in found else "not judged" if None in found else "pass"

    @property
    def failed_stage(self) -> str:
        """Return the first stage that fails; "requirements" if only they do; "" on a pass."""
        for stage in self.stages:
            if not stage.ok:
                return stage.name
        return "" if self.verdict == "pass" else "requirements"

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON takes it, but for the pictures."""
        return {
            "verdict": self.verdict,
            "stages": [asdict(stage) for stage in self.stages],
            "requirements": [asdict(each) for each in self.requirements],
            "isolation": self.isolation.to_dict(),
            "rests_on": self.rests_on,
        }

    def as_text(self) -> str:
        """Return it for people, a line for each stage and requirement."""
        lines = [f"{self.verdict.upper()}: {self.reason}"]
        lines += [f"  [{_word(s.ok)}] {s.name}: {s.detail}" for s in self.stages]
        lines += [
            f"  [{_word(r.ok)}] {r.number}. {r.text}: {r.evidence}" for r in self.requirements
        ]
        lines.append(f"  ran in isolation: {self.isolation.level}")
        if self.pictures:
            lines += [f"  rests on {who}: {what}" for who, what in self.rests_on.items()]
        return "\n".join(lines)

    @property
    def reason(self) -> str:
        """Return the verdict's reason in a few words."""
        if self.verdict == "pass":
            return "every stage and all eight requirements"
        missed, unjudged = (
            ", ".join(str(r.number) for r in self.requirements if r.ok is ok)
            for ok in (False, None)
        )
        if self.verdict == "not judged":
            return f"the lab had too little time for {unjudged}; grade it again on an idle machine"
        if self.failed_stage != "requirements":
            return f"the stage {self.failed_stage} fails"
        return f"missed of the eight: {missed}" + (f"; not judged: {unjudged}" if unjudged else "")


def grade_file(path: str | Path, minimum: str = "strong", tell: Tell = lambda _: None) -> Grade:
    """Grade a transcript, or a program if the name ends in .py; see `grade_text`.

    Raise SettingError if the file cannot be read, or is not text.
    """
    path, remedy = Path(path), "give a transcript or a program"
    try:
        # A run that is cut at a token may end within a letter.
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(read_bytes(path, _MOST_BYTES))
    except OSError as error:
        raise SettingError(f"{path} cannot be read: {error.strerror}; {remedy}") from None
    except UnicodeDecodeError as error:
        raise SettingError(f"{path} is not UTF-8 text (byte {error.start}); {remedy}") from None
    if not text.strip():
        raise SettingError(f"{path} is empty; {remedy}")
    return grade_text(text, path.suffix == ".py", minimum, tell)


def grade_text(
    text: str,
    is_program: bool = False,
    minimum: str = "strong",
    tell: Tell = lambda _: None,
    stop: threading.Event | None = None,
) -> Grade:
    """Grade an answer: a transcript with its thinking, or a program alone.

    is_program: take the whole text; by default its program is looked for, see `extract_program`.
    minimum is the level of isolation below which nothing is run; tell gets a sentence for each
    step; setting `stop` ends the runs, and what was seen until then is judged. Nothing that the
    text holds raises. Raise SandboxError if the level cannot be reached.
    """
    until = time.monotonic() + _BUDGET
    extracted = extract_program(text, is_program)
    source = extracted.program
    stages = [Stage("extract", extracted.ok, extracted.detail)]
    isolation = probe()
    if not source.strip():
        return _stop_early(stages, isolation)
    check = check_code(source)
    parses = check.parses and not check.problem
    n_lines = len(source.splitlines())
    stages.append(Stage("parse", parses, f"{n_lines} lines" if parses else check.reason))
    if not parses:
        return _stop_early(stages, isolation)
    found = check.reason or ", ".join(check.notes) or "every name is bound somewhere"
    stages.append(Stage("names", not check.unbound, found))
    modules, missing = check_imports(source)
    imported = ", ".join(modules) or "nothing"
    if "pygame" not in modules:
        missing.insert(0, f"pygame is not imported{f', only {imported}' if modules else ''}")
    stages.append(Stage("imports", not missing, "; ".join(missing[:5]) or imported))
    if any("there is no module" in each or "not imported" in each for each in missing):
        return _stop_early(stages, isolation)
    tell("Playing the game in the sandbox ...")
    records, isolation = play_game(source, minimum, tell, stop, until)
    stages.append(Stage("run", *_judge_run(records)))
    frames, pictures = _pick_frames(records), sum(len(r.looks) for r in records)
    return Grade(tuple(stages), judge_game(records), isolation, frames, pictures)


def _stop_early(stages: list[Stage], isolation: Isolation) -> Grade:
    """Return the grade of a program that cannot be run: the rest was not reached."""
    reason = f"not reached: {stages[-1].name} fails"
    rest = [Stage(name, False, reason) for name in STAGES[len(stages) :]]
    return Grade((*stages, *rest), judge_game(()), isolation)


def _judge_run(records: Sequence[GameRecord]) -> tuple[bool, str]:
    """Return whether the game opened a window, showed pictures, listened and raised nothing."""
    n = len(records)
    for ended, word in (("killed", ""), ("stuck", "it hangs: "), ("error", "")):
        bad = [r for r in records if r.ended == ended and not r.quit_by_key]
        if bad:
            which = f"{len(bad)} of {n} runs fail, first" if n > 1 else "the run fails with"
            return False, f"{which} seed {bad[0].plan.seed}: {word}{bad[0].detail}"
    if not any(r.ticks for r in records):
        return False, f"it opens no window, or shows nothing in it: {records[0].detail}"
    if not any(r.asked for r in records):
        return False, "it never asks pygame for events: no key reaches it, and its window hangs"
    early = [r for r in records if r.ended == "exit" and r.phase in ("start", "play")]
    if early:
        return False, f"{len(early)} of {n} runs end in the middle of the game: {early[0].detail}"
    pictures = sum(len(r.ticks) for r in records)
    whole = f"{count_whole(records)} of {len(PLANS)} runs played"
    return True, f"{whole}, each with its own seed: {pictures:,} pictures"


def _pick_frames(records: Sequence[GameRecord]) -> tuple[tuple[str, bytes], ...]:
    """Return the first picture of each name, in the order of the game."""
    frames = {name: data for record in reversed(records) for name, data in record.pictures}
    return tuple((name, frames[name]) for name in _FRAMES if name in frames)


def _word(ok: bool | None) -> str:
    return {True: " OK ", False: "FAIL", None: " -- "}[ok]
