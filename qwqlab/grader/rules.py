"""The article's eight requirements, judged from what a game showed while it was played.

Each rule takes the records of all runs and says what was seen. If something was not seen, the
requirement is not met, and the sentence says what was missing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .record import GameRecord
from .scene import (
    Color,
    Mark,
    Tick,
    is_brown_or_yellow,
    is_dark,
    is_light,
    is_light_blue,
    is_pipe_color,
    name_shape,
)

_SHAPES = ("circle", "square", "triangle")

_TEXTS = (
    "uses pygame",
    "a light background, chosen at random, that starts light blue",
    "SPACE accelerates the bird",
    "the bird is a square, circle or triangle, dark, both chosen at random",
    "land along the bottom, dark brown or yellow, chosen at random",
    "a score at the top right that grows with each pipe",
    "randomly spaced pipes with enough space, dark green, light brown or dark gray",
    "the best score when lost, inside the screen; q and Esc quit; SPACE restarts",
)

_BEST = re.compile(r"best|high|record|top", re.I)
_BEST_NUMBER = re.compile(r"(?:best|high|record|top)\D*(\d{1,9})", re.I)
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Requirement:
    """One of the eight, by its number in the prompt; text is what it asks for, in short.

    frame names the picture that shows it, if there is one.
    """

    number: int
    ok: bool
    evidence: str
    frame: str
    text: str


def judge_game(records: Sequence[GameRecord]) -> tuple[Requirement, ...]:
    """Judge all eight, in the order of the prompt; without records none of them holds."""
    judged: list[Requirement] = []
    for text, (rule, frame) in zip(_TEXTS, _RULES, strict=True):
        ok, evidence = rule(records) if records else (False, "not run")
        shown = frame if records else ""
        judged.append(Requirement(len(judged) + 1, ok, evidence, shown, text))
    return tuple(judged)


def _judge_pygame(records: Sequence[GameRecord]) -> tuple[bool, str]:
    shown = [r for r in records if r.ticks and r.size[0]]
    if not shown:
        return False, "no window of pygame was opened, or nothing was shown in it"
    (width, height), n = shown[0].size, sum(len(r.ticks) for r in shown)
    return True, f"a window of {width} x {height} pixels, {n:,} pictures in {len(shown)} runs"


def _judge_background(records: Sequence[GameRecord]) -> tuple[bool, str]:
    first = [c for r in records if (c := next((t.background for t in r.ticks), None))]
    every = Counter(t.background for r in records for t in r.ticks if t.background)
    if not first:
        return False, "nothing was seen to cover the screen"
    problems = []
    if odd := [c for c in first if not is_light_blue(c)]:
        problems.append(
            f"{len(odd)} of {len(first)} runs start with {_name(odd[0])}, not light blue"
        )
    if dark := [c for c in every if not is_light(c)]:
        problems.append(f"{_name(dark[0])} is not light")
    if len(every) < 2:
        problems.append(f"it is always {_name(first[0])}")
    seen = f"starts with {_name(first[0])}; {len(every)} colours seen, all light"
    return _say(problems, seen)


def _judge_space(records: Sequence[GameRecord]) -> tuple[bool, str]:
    presses = ups = 0
    for ticks in (r.ticks for r in records):
        for at, tick in enumerate(ticks[1:-4], start=1):
            if tick.key != "space" or not tick.moving or "over" in tick.phase:
                continue
            ys = [t.bird.y if t.bird else None for t in ticks[at - 1 : at + 4]]
            if None in ys:
                continue
            speeds = [b - a for a, b in pairwise(ys)]  # type: ignore[operator]
            presses += 1
            ups += min(speeds[1:]) < max(0.0, speeds[0] - 0.3)
    if not presses:
        return False, "the bird was not seen to move, so no press could be judged"
    evidence = f"{ups} of {presses} presses sent the bird upwards, or slowed its fall"
    return ups >= 0.5 * presses, evidence


def _judge_bird(records: Sequence[GameRecord]) -> tuple[bool, str]:
    looks = list(_typical_looks(ticks for r in records for ticks in r.rounds()))
    if not looks:
        return False, "nothing was seen that keeps its place and moves up and down"
    shapes = Counter("circle" if shape == "ellipse" else shape for shape, _ in looks)
    colors = Counter(color for _, color in looks)
    problems = []
    if odd := [shape for shape in shapes if shape not in _SHAPES]:
        problems.append(f"it is drawn as {', '.join(odd)}")
    if len(shapes) < 2:
        problems.append(f"its shape is always {', '.join(shapes)}")
    problems += _judge_colors(colors, is_dark, "is not dark", "its")
    counts = ", ".join(f"{n} {shape}" for shape, n in shapes.most_common())
    return _say(problems, f"{counts} in {len(looks)} rounds; {len(colors)} colours, all dark")


def _judge_land(records: Sequence[GameRecord]) -> tuple[bool, str]:
    ticks = [t for r in records for t in r.ticks]
    lands = Counter(t.land.color for t in ticks if t.land)
    if sum(lands.values()) < 0.5 * len(ticks) or not lands:
        return False, "no band was seen along the bottom of the screen"
    problems = _judge_colors(lands, is_brown_or_yellow, "is neither dark brown nor yellow", "its")
    return _say(problems, f"{len(lands)} colours seen: {', '.join(map(_name, [*lands][:3]))}")


def _judge_score(records: Sequence[GameRecord]) -> tuple[bool, str]:
    tries = wrong = 0
    elsewhere = ""
    for record in records:
        for phase in ("play", "again"):
            ticks = record.in_phase(phase)
            if not ticks:
                continue
            tries += 1
            if not ticks[-1].passed:
                continue
            for text, before in _find_growing(ticks):
                place = f"'{text.detail}' at x {text.x:.0f} to {text.right:.0f}, y {text.y:.0f}"
                if _is_top_right(text, record.size):
                    return True, f"{place}, grew from {before} as {ticks[-1].passed} pipes passed"
                elsewhere = place
            wrong += 1
    if elsewhere:
        return False, f"it grows, but not at the top right: {elsewhere}"
    if wrong:
        return False, f"in {wrong} rounds the bird passed pipes and no number on the screen grew"
    return False, f"not seen: the bird got past no pipe in {tries} rounds"


def _judge_pipes(records: Sequence[GameRecord]) -> tuple[bool, str]:
    ticks = [t for r in records for t in r.in_phase("start", "play", "again") if t.pipes]
    gaps = {(round(p.top), round(p.bottom)) for t in ticks for p in t.pipes if p.x > 0}
    colors = Counter(p.color for t in ticks for p in t.pipes if p.x > 0)
    if not gaps:
        return False, "no pipe was seen: nothing rises from the bottom or hangs from the top"
    heights = [t.bird.h for t in ticks if t.bird]
    bird = sorted(heights)[len(heights) // 2] if heights else 0.0
    passed = sum(max((t.passed for t in r.in_phase("play", "again")), default=0) for r in records)
    smallest = min(bottom - top for top, bottom in gaps)
    problems = []
    if len(gaps) < 2:
        problems.append(f"the gap is always from y {min(gaps)[0]} to {min(gaps)[1]}")
    if smallest < 1.5 * bird:
        problems.append(f"a gap of {smallest} pixels, and the bird is {bird:.0f} high")
    elif not passed:
        problems.append(f"the bird got past no pipe; the smallest gap is {smallest} pixels")
    wrong = "is not dark green, light brown or dark gray"
    problems += _judge_colors(colors, is_pipe_color, wrong, "their")
    seen = f"{len(gaps)} different gaps, the smallest {smallest} pixels for a bird of {bird:.0f}"
    return _say(problems, f"{seen}; {passed} pipes passed; {len(colors)} colours")


def _judge_end(records: Sequence[GameRecord]) -> tuple[bool, str]:
    played = [r for r in records if r.plan.when != "look"]
    overs = [(r, r.in_phase("over")) for r in played]
    ends = [(r, ticks[-1]) for r, ticks in overs if ticks]
    if not ends:
        return False, "the game was never seen to be lost"
    problems = []
    best = [found for _, tick in ends if (found := _find_best(tick)) is not None]
    if not best:
        problems.append("no best score is shown when the game is lost")
    for record, tick in ends:
        later = record.in_phase("over again")
        first, second = _find_best(tick), _find_best(later[-1]) if later else None
        if first and second and second[1] < first[1]:
            problems.append(f"the best score falls from {first[1]} to {second[1]} in a new round")
            break
    for record, tick in ends:
        found, score = _find_best(tick), _find_score(record.in_phase("play"))
        if found and score is not None and found[1] < score:
            problems.append(f"the best score shown is {found[1]}, and the score was {score}")
            break
    outside = [text for r, tick in ends for text in tick.texts if not _is_inside(text, r.size)]
    if outside:
        problems.append(f"'{outside[0].detail}' does not fit into the screen")
    for key in ("q", "escape"):
        asked = [r for r in played if r.plan.key == key and r.plan.when == "over"]
        if not any(r.quit_by_key for r in asked):
            in_play = any(r.quit_by_key for r in played if r.plan.key == key)
            where = "when the game is lost, only in play" if in_play else "the game"
            problems.append(f"{'Esc' if key == 'escape' else key} does not quit {where}")
    again = [r for r, _ in ends if r.plan.when == "over"]
    if not any(_has_restarted(r) for r in again):
        problems.append("SPACE does not start the game again")
    shown = best[0][0] if best else ""
    return _say(problems, f"'{shown}' inside the screen; q and Esc quit; SPACE starts again")


_RULES: tuple[tuple[Callable[[Sequence[GameRecord]], tuple[bool, str]], str], ...] = (
    (_judge_pygame, "start"),
    (_judge_background, "start"),
    (_judge_space, "play"),
    (_judge_bird, "play"),
    (_judge_land, "start"),
    (_judge_score, "play"),
    (_judge_pipes, "play"),
    (_judge_end, "over"),
)


def _typical_looks(rounds: Iterable[Sequence[Tick]]) -> Iterator[tuple[str, Color]]:
    """Yield the bird's shape and colour in most of the pictures of each round in which it moved."""
    for ticks in rounds:
        birds = (t.bird for t in ticks if t.bird and t.moving)
        looks = Counter((name_shape(bird), bird.color) for bird in birds)
        yield from (look for look, _ in looks.most_common(1))


def _judge_colors(
    colors: Counter[Color], fits: Callable[[Color], bool], wrong: str, whose: str
) -> list[str]:
    """Return what is wrong with colours that must fit and be chosen at random."""
    problems = [f"{_name(color)} {wrong}" for color in colors if not fits(color)][:1]
    if len(colors) < 2:
        problems.append(f"{whose} colour is always {_name(next(iter(colors)))}")
    return problems


def _say(problems: Sequence[str], seen: str) -> tuple[bool, str]:
    return not problems, "; ".join(problems) or seen


def _name(color: Color | None) -> str:
    return f"the colour {color}" if color else "no colour"


def _find_growing(ticks: Sequence[Tick]) -> Iterator[tuple[Mark, int]]:
    """Yield the texts of the last picture whose number is larger than in the first, with that."""
    before = {_make_pattern(t): _last_number(t) for t in reversed(ticks[0].texts)}
    for text in ticks[-1].texts:
        if (number := _last_number(text)) is None:
            continue
        earlier = before.get(_make_pattern(text))
        if earlier is not None and number > earlier:
            yield text, earlier


def _find_score(ticks: Sequence[Tick]) -> int | None:
    """Return the number that grew in these pictures as the last shows it; None if none did."""
    grown = [_last_number(text) for text, _ in _find_growing(ticks)] if ticks else []
    return min((number for number in grown if number is not None), default=None)


def _make_pattern(text: Mark) -> str:
    return _NUMBER.sub("#", text.detail)


def _last_number(text: Mark) -> int | None:
    numbers = _NUMBER.findall(text.detail)
    return int(numbers[-1][:9]) if numbers else None


def _is_top_right(text: Mark, size: tuple[int, int]) -> bool:
    """Return whether a text is whole and in the upper right part of the screen."""
    inside = _is_inside(text, size)
    return inside and text.middle[0] > 0.55 * size[0] and text.bottom < 0.3 * size[1]


def _is_inside(text: Mark, size: tuple[int, int]) -> bool:
    """Return whether all of it is on the screen."""
    return text.x >= 0 and text.y >= 0 and text.right <= size[0] and text.bottom <= size[1]


def _find_best(tick: Tick) -> tuple[str, int] | None:
    """Return the text that shows a best score, and the score, in the same text or beside it."""
    for text in tick.texts:
        if found := _BEST_NUMBER.search(text.detail):
            return text.detail, int(found[1])
    for text in (t for t in tick.texts if _BEST.search(t.detail)):
        for other in tick.texts:
            if other.detail.strip().isdecimal() and abs(other.y - text.y) < max(10, text.h):
                return f"{text.detail} {other.detail}", int(other.detail.strip()[:9])
    return None


def _has_restarted(record: GameRecord) -> bool:
    """Return whether the bird moved again for half a second, with no text left that was only there
    when the game was lost."""
    ticks = record.in_phase("again")
    lost = {_make_pattern(t) for tick in record.in_phase("over")[-1:] for t in tick.texts}
    played = {_make_pattern(t) for tick in record.in_phase("play") for t in tick.texts}
    free = [t for t in ticks if not {_make_pattern(x) for x in t.texts} & (lost - played)]
    heights = {round(t.bird.y) for t in free if t.bird}
    return len(free) >= 20 and len(heights) >= 5
