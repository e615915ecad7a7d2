"""The grader's verdict on every specimen, on transcripts, and on what is no game at all."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hostile import HOSTILE_GAMES

from qwqlab.cli import main
from qwqlab.errors import SandboxError, SettingError
from qwqlab.experiments import check_code
from qwqlab.grader import (
    extract_program,
    grade_file,
    grade_text,
    list_arms,
    read_prompt,
    show_differences,
)
from qwqlab.grader import grading as grade
from qwqlab.grader.imports import check_imports
from qwqlab.grader.record import GameRecord, PlayPlan, read_record
from qwqlab.grader.scene import Mark, is_brown_or_yellow, is_light_blue, is_pipe_color, name_shape
from qwqlab.paths import CHECKOUT, data_dir
from qwqlab.sampling import parse_command
from qwqlab.sandbox import Outcome, probe

SPECIMENS = CHECKOUT / "data" / "specimens"
EXPECTED = json.loads((SPECIMENS / "expected.json").read_text(encoding="utf-8"))
COMPLETE = (SPECIMENS / "complete.py").read_text(encoding="utf-8")
# Each stage and each requirement fails in one of these.
ONE_OF_EACH = (
    "syntax.py", "global_trick.py", "missing_module.py", "no_pygame.py", "color_overflow.py",
    "no_restart.py", "space_does_nothing.py", "bright_bird.py", "no_land.py", "endless_loop.py",
)  # fmt: skip


def at_night(names: Iterable[str], *by_day: str) -> list[Any]:
    """These names as a test's parameters; those that `make test` leaves out are marked."""
    night = pytest.mark.nightly
    return [pytest.param(n, marks=() if n in by_day else night, id=n) for n in names]


@pytest.mark.slow
@pytest.mark.parametrize("name", at_night(EXPECTED, *ONE_OF_EACH))
def test_a_specimen_fails_as_its_name_says_and_nowhere_else(name: str) -> None:
    graded = grade_file(SPECIMENS / name)
    expected = EXPECTED[name]
    assert (graded.verdict, graded.failed_stage) == (expected["verdict"], expected["stage"]), (
        graded.as_text()
    )
    if graded.failed_stage in ("", "requirements"):
        missed = [each.number for each in graded.requirements if not each.ok]
        assert missed == expected["requirements"], graded.as_text()
    assert json.dumps(graded.to_dict())
    assert [stage.name for stage in graded.stages] == list(grade.STAGES)
    assert all(stage.detail for stage in graded.stages)
    assert all(each.evidence for each in graded.requirements)


# The complete game, written in other ways that models write it.
OTHER_WAYS = {
    "asyncio": {
        "import random\n": "import asyncio\nimport random\n",
        "    def run(self):": "    async def run(self):",
        "self.clock.tick(60)": "await asyncio.sleep(1 / 60)",
        "Game().run()": "asyncio.run(Game().run())",
    },
    "freetype": {
        "import pygame\n": "import pygame\nimport pygame.freetype\n",
        "pygame.font.Font(None, 32)": "pygame.freetype.SysFont('Arial', 24)",
        "image = self.font.render(text, True, (20, 20, 20))": (
            "image, _ = self.font.render(text, (20, 20, 20))"
        ),
    },
    "a bird on a colour key": {
        "        if self.shape ==": """        target = self.screen
        self.screen = pygame.Surface((30, 30)).convert()
        self.screen.set_colorkey((255, 0, 255))
        self.screen.fill((255, 0, 255))
        place, self.bird = self.bird, pygame.Rect(0, 0, 30, 30)
        self.draw_shape()
        target.blit(self.screen, place)
        self.screen, self.bird = target, place

    def draw_shape(self):
        if self.shape =="""
    },
    "a veil over a lost game": {
        "        if self.lost:\n            self.write": """        if self.lost:
            veil = pygame.Surface((WIDTH, HEIGHT), pygame.SRCALPHA)
            veil.fill((0, 0, 0, 90))
            self.screen.blit(veil, (0, 0))
            self.write"""
    },
    "a pair of pipes as one image": {
        """            for wall in self.walls(pipe):
                pygame.draw.rect(self.screen, pipe["color"], wall)
""": """            image = pygame.Surface((PIPE_WIDTH, FLOOR), pygame.SRCALPHA)
            for wall in self.walls(pipe):
                pygame.draw.rect(image, pipe["color"], wall.move(-pipe["x"], 0))
            self.screen.blit(image, (pipe["x"], 0))
"""
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", at_night(OTHER_WAYS, "asyncio"))
def test_the_complete_game_passes_however_it_is_written(name: str) -> None:
    source = COMPLETE
    for old, new in OTHER_WAYS[name].items():
        assert old in source
        source = source.replace(old, new)
    graded = grade_text(source, is_program=True)
    assert graded.verdict == "pass", graded.as_text()


def test_every_specimen_is_expected_and_every_requirement_is_missed_by_one() -> None:
    assert {path.name for path in SPECIMENS.glob("*.py")} == set(EXPECTED)
    by_day = [EXPECTED[name] for name in ONE_OF_EACH]
    missed = {number for each in by_day for number in each["requirements"]}
    assert missed == set(range(2, 9))  # the first falls with the stage `imports`
    stages = {each["stage"] for each in by_day}
    assert stages == {"parse", "names", "imports", "run", "requirements"}


def test_a_linter_passes_the_articles_case_and_the_lab_does_not() -> None:
    path = SPECIMENS / "global_trick.py"
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F", str(path)]
    done = subprocess.run(ruff, capture_output=True, text=True)
    assert done.returncode == 0 and "All checks passed" in done.stdout
    assert check_code(path.read_text(encoding="utf-8")).reason.endswith("pipes is bound nowhere")


FENCED = f"```python\n{COMPLETE}```\n"
ANSWERS = [
    ("one fence", f"Here it is:\n\n{FENCED}\nEnjoy!", True),
    (
        "thinking with a draft",
        f"Hm.\n```python\nimport pygame\nx = (\n```\n</think>\n{FENCED}",
        True,
    ),
    ("its own opening tag", f"<think>\nHm.\n</think>\n\n{FENCED}", True),
    ("thinking twice", f"<think>a</think> b <think>```\nc\n```</think>\n{FENCED}", True),
    ("a shell block first", f"```bash\npip install pygame\n```\n{FENCED}", True),
    ("a shell block last", f"{FENCED}\nRun it:\n```\npython game.py\n```\n", True),
    ("a snippet last", f"{FENCED}\n```python\nGAP = 200\n```\n", True),
    ("two versions", f"```python\nimport pygame\npygame.broken(\n```\nFixed:\n{FENCED}", True),
    ("no info string", f"```\n{COMPLETE}```", True),
    ("tildes and CRLF", f"~~~py\n{COMPLETE}~~~\n".replace("\n", "\r\n"), True),
    ("inside a list", "1. " + FENCED.replace("\n", "\n   "), True),
    ("no fence at all", COMPLETE, True),
    ("a fence that never closes", f"```python\n{COMPLETE}", True),
    ("prose", "I can't write games.", False),
    ("thinking that never ends", f"<think>\n{FENCED}", False),
    ("only a shell block", "```bash\npip install pygame\n```", False),
    ("an empty block", "```python\n```", False),
]


@pytest.mark.parametrize(("name", "text", "found"), ANSWERS, ids=[each[0] for each in ANSWERS])
def test_the_final_program_is_found(name: str, text: str, found: Any) -> None:
    extracted = extract_program(text)
    assert extracted.ok == found, extracted.detail
    if found:
        assert extracted.program.strip() == COMPLETE.strip()
    else:
        graded = grade_text(text)
        assert graded.failed_stage == "extract" and graded.stages[0].detail


def test_an_answer_that_was_cut_off_is_judged_as_far_as_it_goes() -> None:
    cut = grade_text(f"```python\n{COMPLETE[: len(COMPLETE) // 2]}")
    assert "never closed" in cut.stages[0].detail
    assert cut.failed_stage in ("parse", "names", "run")


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import pygame\npygame.draw.rect\npygame.K_q\npygame.font.SysFont\n", []),
        ("import pygame.mixer as m\nm.Sound\nm.Song\n", ["line 3: pygame.mixer has no Song"]),
        ("from pygame import Rectangle\n", ["line 1: pygame has no Rectangle"]),
        ("from pygame.locals import K_SPACE, K_SPACEBAR\n",
         ["line 1: pygame.locals has no K_SPACEBAR"]),
        ("import pygame as pg\npg = 3\npg.nothing\n", []),
        ("try:\n    import numba\nexcept ImportError:\n    pass\n", []),
        ("import os, nowhere.at.all\n", ["line 1: there is no module nowhere"]),
        ("from . import near\n", []),
        ("import pygame.nothing\n", ["line 1: there is no module pygame.nothing"]),
    ],
)  # fmt: skip
def test_imports_that_lead_nowhere_are_named(source: str, found: list[Any] | list[str]) -> None:
    assert check_imports(source)[1] == found


def test_the_prompt_is_the_articles_to_the_letter() -> None:
    commands = json.loads((data_dir() / "article" / "commands.json").read_text(encoding="utf-8"))
    for command in commands["commands"]:
        assert parse_command(command["text"]).prompt == read_prompt()


def test_the_arms_differ_in_one_thing_each() -> None:
    fixed, plain, strong, full = list_arms("Q4_K_M")
    assert [name for name, *_ in show_differences(fixed.sampling, plain.sampling)] == ["samplers"]
    assert show_differences(plain.sampling, strong.sampling) == [("repeat_penalty", 1.1, 1.5)]
    assert full.sampling == plain.sampling and full.quant == "BF16"
    names = [arm.filename for arm in (fixed, plain, full)]
    assert names == [
        "Q4_K_M_yes_samplers.txt", "Q4_K_M_no_samplers.txt", "BF16_no_samplers.txt"
    ]  # fmt: skip
    for arm in (fixed, plain, strong, full):
        command = arm.command("model.gguf", 100)
        again = parse_command(command.line())
        assert (again.sampling, again.prompt, again.seed) == (arm.sampling, read_prompt(), 3407)


def test_shapes_and_colours_have_their_names() -> None:
    box = Mark("polygon", (0, 0, 0), 0, 0, 30, 30)
    for corners, shape in {"3": "triangle", "4": "square", "12": "circle"}.items():
        assert name_shape(replace(box, detail=corners)) == shape
    assert is_light_blue((173, 216, 230)) and not is_light_blue((0, 0, 139))
    assert is_brown_or_yellow((139, 69, 19)) and not is_brown_or_yellow((34, 139, 34))
    assert is_pipe_color((205, 133, 63)) and not is_pipe_color((255, 215, 0))


def test_a_forged_or_broken_record_is_refused() -> None:
    def read(data: bytes) -> GameRecord:
        done = Outcome(0, "exited", "", "", {"record.json": data}, 1.0, probe())
        return read_record(PlayPlan(1), done)

    sound = {"ended": "exit", "detail": "", "phase": "start", "size": [1, 1], "asked": 1, "log": []}
    tick: list[Any] = ["play", None, None, None, False, [], [], 0, ""]
    assert read(json.dumps({**sound, "log": [tick]}).encode()).ended == "exit"
    flat = ["rect", [0, 0, 0], 1, 1, 0, 0, "", True]
    shapeless = ["polygon", [0, 0, 0], 1, 1, 9, 9, "many", True]
    ticks: list[Any] = [
        [], {}, tick[1:], *([*tick[:3], bird, *tick[4:]] for bird in (flat, shapeless, [1])),
        [*tick[:5], [[1, 2]], *tick[6:]], [*tick[:6], [["x", "a", 1, 1, 1]], *tick[7:]],
    ]  # fmt: skip
    broken = [
        b"", b"\xff", b"[]", b"[" * 100_000, json.dumps({**sound, "size": 3}).encode(),
        json.dumps({**sound, "size": [1e400, 1]}).encode(),
        *(json.dumps({**sound, "log": [each]}).encode() for each in ticks),
    ]  # fmt: skip
    for data in broken:
        record = read(data)
        assert record.ended == "killed" and "cannot be read" in record.detail


QUICK = HOSTILE_GAMES.keys() - {"waits for ever", "swallows all"}  # until they are called stuck


@pytest.mark.slow
@pytest.mark.parametrize("name", at_night(HOSTILE_GAMES, *QUICK))
def test_a_hostile_game_gets_a_verdict_and_a_reason(name: str) -> None:
    graded = grade_text(HOSTILE_GAMES[name], is_program=True)
    assert graded.verdict == "fail"
    assert graded.failed_stage in ("parse", "imports", "run")
    failed = next(stage for stage in graded.stages if not stage.ok)
    assert len(failed.detail) > 10
    assert json.dumps(graded.to_dict())


def test_random_bytes_of_text_never_break_the_grader() -> None:
    draw = random.Random(3407)
    pieces = [
        "```",
        "```python\n",
        "</think>",
        "<think>",
        "import pygame\n",
        "x = (",
        "\n",
        "~~~",
        "é\0",
    ]
    for _ in range(300):
        text = "".join(draw.choices(pieces, k=draw.randint(0, 12)))
        extracted = extract_program(text)
        assert extracted.detail


def test_grade_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grade", str(SPECIMENS / "syntax.py"), "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["verdict"] == "fail"
    assert [stage["name"] for stage in said["stages"]] == list(grade.STAGES)
    assert [each["number"] for each in said["requirements"]] == [*range(1, 9)]
    assert set(said["isolation"]) == {
        "level", "network", "filesystem", "memory", "processes", "applied"
    }  # fmt: skip
    transcript = tmp_path / "answer.txt"
    transcript.write_text(f"Hm.</think>\n{FENCED}", encoding="utf-8")
    frames = tmp_path / "frames"
    assert main(["grade", str(transcript), "--frames", str(frames)]) == 0
    assert capsys.readouterr().out.startswith("PASS: every stage and all eight")
    pictures = {path.stem: path.read_bytes() for path in frames.iterdir()}
    assert {"start", "play", "over", "again"} <= set(pictures)
    assert all(data.startswith(b"\x89PNG") and len(data) > 500 for data in pictures.values())
    assert len(set(pictures.values())) == len(pictures)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("missing.txt", None, "cannot be read: No such file"),
        ("empty.txt", b" \n", "is empty; give a transcript or a program"),
        ("latin.txt", b"caf\xe9", "is not UTF-8 text (byte 3); give a transcript or a program"),
        ("binary.py", bytes(range(256)), "is not UTF-8"),
    ],
)
def test_what_is_no_text_is_refused_with_a_sentence(
    name: str, data: Any, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    if data is not None:
        path.write_bytes(data)
    assert main(["grade", str(path), "--json"]) == 2
    out, err = capsys.readouterr()
    assert not out and words in err and str(path) in err and err.count("\n") == 1


def test_a_folder_and_a_huge_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="Is a directory; give a transcript or a program"):
        grade_file(tmp_path)
    huge = tmp_path / "huge.txt"
    with huge.open("wb") as file:
        file.truncate(30_000_000)
    with pytest.raises(SettingError, match="more than"):
        grade_file(huge)


def test_an_unknown_level_of_isolation_runs_nothing() -> None:
    with pytest.raises(SandboxError, match="minimum is 'iron'"):
        grade_text(COMPLETE, is_program=True, minimum="iron")
