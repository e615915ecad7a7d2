"""The grader's verdict on every specimen, on transcripts, and on what is no game at all."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import cos, pi, sin
from pathlib import Path
from typing import Any

import numpy as np
import pygame
import pytest
from hostile import FORGERIES, HOSTILE_GAMES
from variants import Variant, mix_variants, pick_variants

from qwqlab.cli import main
from qwqlab.errors import SandboxError, SettingError
from qwqlab.experiments import check_code
from qwqlab.grader import (
    Grade,
    extract_program,
    grade_file,
    grade_text,
    list_arms,
    read_prompt,
    show_differences,
)
from qwqlab.grader import grading as grade
from qwqlab.grader.imports import check_imports
from qwqlab.grader.notes import Tick
from qwqlab.grader.pixels import Blob, Box, Color, find_blobs, name_shape
from qwqlab.grader.record import PLANS, GameRecord, Look, PlayPlan, read_record
from qwqlab.grader.rules import Requirement, flies_through, judge_game
from qwqlab.grader.scene import (
    BirdTracker,
    Pipe,
    Text,
    is_brown_or_yellow,
    is_dark,
    is_light_blue,
    is_pipe_color,
)
from qwqlab.grader.words import find_best, find_scores
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
# Of the changed games in `variants`, those that `make test` plays.
BY_DAY = (
    "class: multiplied with gray",
    "functions: called by no word",
    "sprites: on a blurred screen",
)


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
    "woken by a timer": {
        "        running = True\n": (
            "        running = True\n        pygame.time.set_timer(pygame.USEREVENT, 16)\n"
        ),
        "in pygame.event.get():": "in [pygame.event.wait()]:",
        "            self.update()\n": (
            "            if event.type == pygame.USEREVENT:\n                self.update()\n"
        ),
        "            self.clock.tick(60)\n": "",
    },
    "drawn twice a step": {
        "            self.draw()\n": """            self.draw()
            self.clock.tick(60)
            self.draw()
"""
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
        ("import pygame.gfxdraw as g\ng.box\ng.square\n",
         ["line 3: pygame.gfxdraw has no square"]),
    ],
)  # fmt: skip
def test_imports_that_lead_nowhere_are_named(source: str, found: list[Any] | list[str]) -> None:
    assert check_imports(source)[1] == found


def test_an_import_line_runs_nothing_in_the_lab() -> None:
    lines = ["import pygame.examples.glcube", "import pygame.tests.__main__",
             "from pygame.examples import glcube", "from pygame.tests import __main__",
             "import antigravity", "import this",
             "import pygame.examples as e\ne.glcube.main"]  # fmt: skip
    check_imports("import pygame\n")
    before = set(sys.modules)
    for line in lines:
        assert check_imports(f"{line}\n")[1] == []
    run = [name for name in set(sys.modules) - before if not name.startswith("importlib")]
    assert not [
        name for name in run if name.startswith("pygame") or name in ("this", "antigravity")
    ]


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


def draw(shape: str, size: int, turn: float) -> Any:
    """A picture, (height, width) of 0xRRGGBB, with one shape in it."""
    x, y = np.meshgrid(np.arange(100) - 49.7, np.arange(100) - 50.2)
    x, y = x * cos(turn) + y * sin(turn), y * cos(turn) - x * sin(turn)
    half = size / 2
    inside = {
        "circle": np.hypot(x, y) < half,
        "square": (abs(x) < half) & (abs(y) < half),
        "triangle": (y < half) & (y > 2 * abs(x) - half),
        "rectangle": (abs(x) < half) & (abs(y) < half / 2),
        "polygon": sum(
            np.cos(np.arctan2(y, x) - at * 2 * pi / 5) * np.hypot(x, y) > 0.4 * half
            for at in range(5)
        )
        < 2,
    }[shape]
    return np.where(inside, 0x202060, 0xADD8E6).astype(np.uint32)


def test_shapes_are_named_whichever_way_they_are_turned() -> None:
    luck = random.Random(3407)
    for shape in ("circle", "square", "triangle", "rectangle"):
        for _ in range(40):
            size, turn = luck.randint(16, 60), luck.uniform(0, 7)
            picture = draw(shape, size, turn)
            bird = min(find_blobs(picture), key=lambda blob: blob.n)
            assert name_shape(picture, bird) == shape, (size, turn)
            assert bird.color == (0x20, 0x20, 0x60)
    for radius, scale in ((6, 1), (6, 3), (5, 2), (9, 2)):  # as pygame draws it
        window = pygame.Surface((60, 60))
        pygame.draw.circle(window, (32, 32, 96), (30, 30), radius)
        drawn = pygame.surfarray.array2d(pygame.transform.scale_by(window, scale)).T
        picture = (drawn & 0xFFFFFF).astype(np.uint32)
        bird = min(find_blobs(picture), key=lambda blob: blob.n)
        assert name_shape(picture, bird) == "circle", (radius, scale)
    rough = random.Random(3407)
    for shape in ("circle", "square", "triangle"):
        noise = np.array([[rough.randint(0, 24) * 0x10101 for _ in range(100)] for _ in range(100)])
        picture = (draw(shape, 40, 0.3) + noise).astype(np.uint32)
        sky = max(find_blobs(picture), key=lambda blob: blob.n)
        bird = min(find_blobs(picture), key=lambda blob: abs(blob.n - 1200))
        assert name_shape(picture, bird, sky.color) == shape


def name_color(name: str) -> Color:
    r, g, b, _ = pygame.Color(name)
    return r, g, b


def test_a_sun_behind_a_pipe_is_no_bird() -> None:
    tracker = BirdTracker()
    for at in range(12):  # of both the edges move at other times, as when seen from afar
        bird = Blob(100, 4 * (at // 2), 30, 30 + 2 * (at % 2), (0, 0, 90), 900)
        sun = Blob(200, 80 + 3 * at, 80, 80 - 3 * at, (255, 240, 150), 6000 - 200 * at)
        seen, moving = tracker.follow([sun, bird], 400)
    assert moving and seen == bird


def test_colours_have_their_names() -> None:
    assert is_light_blue((173, 216, 230)) and not is_light_blue((0, 0, 139))
    assert is_brown_or_yellow((139, 69, 19)) and not is_brown_or_yellow((34, 139, 34))
    assert is_pipe_color((205, 133, 63)) and not is_pipe_color((255, 215, 0))
    names = "darkred navy darkgreen purple darkcyan dimgray saddlebrown darkmagenta black indigo"
    assert all(is_dark(name_color(name)) for name in names.split())
    for (
        name
    ) in "red magenta yellow lightgray gray limegreen orange deeppink cyan darkorange".split():
        assert not is_dark(name_color(name)), name
    assert not is_dark((255, 60, 60)) and not is_dark((0, 200, 0))


def play(words: str, late: int = 0) -> list[Tick]:
    """Return 400 pictures with a text: {n} pipes were passed `late` pictures ago, {s} is time."""
    passes = (100, 180, 290)

    def show(at: int) -> Tick:
        n, passed = (sum(at - lag >= each for each in passes) for lag in (late, 0))
        shown = Text(300, 9, 90, 20, words.format(n=n, s=at // 60, left=3 - n))
        return Tick("play", None, True, (), (shown,), passed)

    return [show(at) for at in range(400)]


def test_a_score_is_known_by_what_it_does_and_a_best_score_by_its_words() -> None:
    grows = "Score: {n}|{n}|{n}/50|Time {s}  Points {n}|Level 1: {n}|{n:03d}|Points 1,00{n}"
    for words in grows.split("|"):
        for late in (0, 30):
            ticks = play(words, late)
            found = [score.read_last(ticks) for score in find_scores([ticks, ticks])]
            assert found in ([3], [1003]), words
    for words in ("Score: 0", "Score: {s}", "{s}", "Lives: {left}"):
        ticks = play(words)
        assert not find_scores([ticks, ticks]), words
    bests = "Best: 7|HI 7|Max score: 7|Score 3, Record 7|7 is your best|TOP 7|Highscore 7"
    for words in bests.split("|"):
        assert find_best([Text(0, 0, 90, 20, words)]) == (words, 7)
    panel = [Text(50, 30 * at, 40, 20, word) for at, word in enumerate(["SCORE", "3", "BEST", "7"])]
    assert find_best(panel) == ("BEST 7", 7)
    digits = [Text(50 + 12 * at, 40, 11, 20, digit) for at, digit in enumerate("123")]
    assert find_best([Text(50, 9, 60, 20, "Best"), *digits]) == ("Best 123", 123)
    for words in ("Score: 7", "High wind", "Hit 7 pipes", "Press SPACE"):
        assert find_best([Text(0, 0, 90, 20, words)]) is None


def see(
    n: int, shapes: Sequence[str] = ("circle", "square"), colors: int = 2, gaps: Sequence[int] = ()
) -> tuple[Requirement, ...]:
    """Judge the first n of all runs, each with one look at a round, and pipes with these gaps."""
    records = []
    for at, plan in enumerate(PLANS[:n]):
        shade = 20 * (at % colors)
        bird = (shapes[at % len(shapes)], (shade, 0, 60))
        look = Look(
            "play", True, (173, 216, 230), (80, 50 + shade, 20), bird, ((0, 80 + shade, 0),)
        )
        pipes = [(Pipe(300, 60, top, top + 180),) for top in gaps]
        ticks = tuple(Tick("play", Box(90, 250, 30, 30), True, each, (), 1) for each in pipes)
        records.append(GameRecord(plan, "exit", "", "play", (400, 600), 1, ticks, (look,)))
    return judge_game(records)


def test_what_takes_many_rounds_is_not_judged_by_few() -> None:
    few = see(4, ["square"], 1)
    said = "not judged: 4 of 12 runs were played in the time"
    assert [(each.ok, each.evidence) for each in (few[1], few[3], few[4])] == [(None, said)] * 3
    held = Grade((), tuple(replace(each, ok=each.ok is not None or None) for each in few), probe())
    assert held.verdict == "not judged" and held.to_dict()["requirements"][3]["ok"] is None
    assert held.as_text().startswith("NOT JUDGED: the lab had too little time for ")
    assert f"  [ -- ] 4. {few[3].text}: {said}" in held.as_text()
    many = see(8, ["square"], 1)
    assert many[3].ok is False and "its shape is always square" in many[3].evidence
    assert see(4)[3].ok is True  # what few rounds show holds
    bright = see(4, ["star"])[3]
    assert bright.ok is False and bright.evidence == "it is drawn as star"


def test_twelve_rounds_show_all_three_shapes() -> None:
    assert see(11)[3].ok is True
    assert see(12)[3].evidence == "its shape was never triangle in 12 rounds"
    assert see(12, ["circle", "square", "triangle"])[3].ok is True


def test_a_gap_that_was_misread_is_no_other_gap() -> None:
    fixed, misread = [180] * 200, [180] * 190 + [120] * 10
    for gaps in (fixed, misread):
        assert see(12, gaps=gaps)[6].evidence == "the gap is always from y 180 to 360"
    assert see(12, gaps=[150, 260, 90] * 50)[6].ok is True


def test_a_pipe_that_the_bird_flies_through_is_no_pipe_that_it_passed() -> None:
    def fly(y: float, n: int = 90) -> bool:
        pipes = [(Pipe(300 - 3 * at, 60, 150, 330),) for at in range(90)]
        ticks = [Tick("play", Box(90, y, 30, 30), True, each, (), 0) for each in pipes]
        return flies_through(ticks[:n])

    assert fly(340) and fly(100)
    assert not fly(200)  # through the gap
    assert not fly(340, 73)  # it is lost two pictures after it is wholly inside


def test_a_picture_shown_twice_shows_a_bird_that_moves() -> None:
    sky, bird = b"\0\xad\xd8\xe6", b"\0\0\0\0"
    picture = zlib.compress(sky * 8 + (sky + bird * 2 + sky) * 2)

    def look(*heights: int) -> bool:
        ticks = [["play", [1, y, 2, 2], True, [], [], 0, ""] for y in heights]
        return read({**END, "pictures": [[4, "play"]]}, *ticks, _4=picture).looks[0].moving

    assert look(3, 0, 1, 2, 2, 2, 1) and look(0, 1, 1, 2, 2, 2, 2, 3)
    assert not look(0, 1, 2, 2, 2, 2, 2, 2) and not look(2, 2, 2, 2, 2, 2, 3)


WATCHED = """
import pygame
from qwqlab.grader.pygame_patch import PatchedPygame

looks = []
watch = PatchedPygame(lambda: looks.append(watch.changed), 1)
pygame.init()
screen, clock = pygame.display.set_mode((60, 60)), pygame.time.Clock()
for at in range(144):
    screen.fill((at, 0, 0))
    pygame.display.flip()
    clock.tick(144)
print(len(looks), all(looks))
looks.clear()
pygame.time.set_timer(pygame.USEREVENT, 16)
for at in range(100):
    while pygame.event.wait().type != pygame.USEREVENT:
        pass
    screen.fill((0, at, 0))
    pygame.display.flip()
print(len(looks), all(looks))
"""


def test_a_game_is_looked_at_as_often_as_it_moves_and_sixty_times_a_second() -> None:
    quiet = {"SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy"}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED], capture_output=True, text=True, env=os.environ | quiet
    )
    assert done.stdout.splitlines()[-2:] == ["48 True", "100 True"], done.stdout + done.stderr


TICK: list[Any] = ["start", [90, 250, 30, 30], False, [], [["Score: 0", 1, 1, 9, 9]], 0, ""]
END = {"ended": "exit", "detail": "", "phase": "start", "size": [4, 4], "asked": 1, "pictures": []}


def read(*lines: Any, plan: PlayPlan = PLANS[0], **files: bytes) -> GameRecord:
    data = b"\n".join(x if isinstance(x, bytes) else json.dumps(x).encode() for x in lines)
    found = {"record.jsonl": data, **{f"{k[1:]}.picture": v for k, v in files.items()}}
    return read_record(plan, Outcome(0, "exited", "", "", found, 1.0, probe()))


def test_a_broken_record_is_refused() -> None:
    assert read(END, TICK).ended == "exit"
    assert read({**END, "detail": "lost\nPASS: all"}, TICK).detail == "lost PASS: all"  # one line
    huge = int("9" * 4000)
    birds: list[Any] = [[1], [1, 2, 0, 3], [1, 2, 3, -1], [1, 2, 3, "4"], [1e9, 0, 1, 1], True]
    texts: list[Any] = [[["x", "a", 1, 1, 1]], [[1] * 5], [["x" * 99, 1, 1, 1, 1]], [["x"]], "x"]
    pipes: list[Any] = [[[1, 2]], [[]], [None], [[1] * 4] * 99, 1]
    ticks: list[Any] = [
        [], {}, None, 3, [{}] * 7, TICK[1:], [*TICK, 1], ["elsewhere", *TICK[1:]],
        *([TICK[0], each, *TICK[2:]] for each in (*birds, [huge, 0, 1, 1])),
        *([*TICK[:3], each, *TICK[4:]] for each in pipes),
        *([*TICK[:4], each, *TICK[5:]] for each in texts),
        *([*TICK[:5], each, ""] for each in (huge, -1, 0.5, True, "0", None)),
        *([*TICK[:6], each] for each in ("return", "escape", None, 3)),
    ]  # fmt: skip
    for tick in ticks:
        record = read(END, tick)
        assert record.ended == "killed" and "cannot be read" in record.detail, tick
    ends: list[Any] = [
        b"", b"\xff", b"[]", b"[" * 19_000, b"9" * 4500, {}, {**END, "more": 1},
        *({**END, **each} for each in (
            {"size": 3}, {"size": [4]}, {"size": [-1, 4]}, {"size": [huge, 4]}, {"asked": 0.5},
            {"ended": "pass"}, {"ended": 1}, {"detail": "x" * 999}, {"phase": "won"},
            {"pictures": [[0]]}, {"pictures": [[0, "start"]]}, {"pictures": [[9, "start"]]})),
    ]  # fmt: skip
    for end in ends:
        assert read(end, TICK).ended == "killed", end
    assert read(END, *[TICK] * 6001).ended == "killed"
    assert read(END, b"[" + b"{}," * 9_000 + b"{}]").ended == "killed"
    # What cannot have happened: pipes passed in one picture, a key on a run that is only looked at.
    assert read(END, TICK, [*TICK[:5], 2, ""]).ended == "killed"
    assert read(END, [*TICK[:6], "q"], plan=PlayPlan(5, when="look")).ended == "killed"
    assert "no picture was kept" in read(END, *[TICK] * 20).detail
    assert "it is empty, as on a disk that the game has filled" in read(b"").detail


def test_pictures_of_another_size_are_refused_and_none_grows_in_memory() -> None:
    end = {**END, "pictures": [[0, "start"]]}
    sky = zlib.compress(b"\0\xad\xd8\xe6" * 16)
    kept = read(end, ["start", None, False, [], [], 0, ""], _0=sky)
    assert kept.ended == "exit" and kept.looks[0].background == (173, 216, 230)
    assert kept.pictures[0][1].startswith(b"\x89PNG")
    bomb = zlib.compress(bytes(50_000_000))
    tracemalloc.start()
    for data in (b"", sky[:-9], zlib.compress(bytes(60)), zlib.compress(bytes(68)), bomb):
        assert read(end, TICK, _0=data).ended == "killed"
    assert read(end, b"[" + b"{}," * 20_000_000).ended == "killed"
    assert tracemalloc.get_traced_memory()[1] < 200_000_000
    tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_record_gets_no_pass(name: str) -> None:
    source, reason = FORGERIES[name]
    graded = grade_text(source, is_program=True)
    assert graded.failed_stage == "run" and reason in graded.stages[-1].detail


VARIANTS = {variant.id: variant for variant in pick_variants()}


def check_variant(variant: Variant) -> None:
    graded = grade_text(variant.source, is_program=True)
    missed = [each.number for each in graded.requirements if not each.ok]
    if variant.breaks:
        assert graded.failed_stage == "requirements" and variant.breaks in missed, graded.as_text()
    else:
        assert graded.verdict == "pass", graded.as_text()
    said = graded.to_dict()
    assert "pictures" in said["rests_on"]["the lab"] and "could forge" in graded.as_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", at_night(VARIANTS, *BY_DAY))
def test_a_changed_game_is_judged_by_what_it_shows(name: str) -> None:
    check_variant(VARIANTS[name])


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_a_game_changed_in_every_way_passes(seed: int) -> None:
    variant = mix_variants(seed)
    print(f"seed {seed}: {variant.id}")
    check_variant(variant)


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
        ("latin.txt", b"caf\xe9s", "is not UTF-8 text (byte 3); give a transcript or a program"),
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


def test_a_transcript_may_end_within_a_letter(tmp_path: Path) -> None:
    path = tmp_path / "cut.txt"
    path.write_bytes("```python\nprint(1)\n```\nThat is a bird: 🐦".encode()[:-2])
    assert grade_file(path).failed_stage == "imports"


def test_a_folder_and_a_huge_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="Is a directory; give a transcript or a program"):
        grade_file(tmp_path)
    huge = tmp_path / "huge.txt"
    with huge.open("wb") as file:
        file.truncate(30_000_000)
    with pytest.raises(SettingError, match="more than"):
        grade_file(huge)


def test_a_pipe_is_refused_by_every_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    render = ["render", "--template", "with-think", "--messages"]
    for command in (["grade"], ["generate", "--seed", "1", "-f"], render):
        assert main([*command, str(pipe)]) in (1, 2), command
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and str(pipe) in said, said


def test_an_unknown_level_of_isolation_runs_nothing() -> None:
    with pytest.raises(SandboxError, match="minimum is 'iron'"):
        grade_text(COMPLETE, is_program=True, minimum="iron")
