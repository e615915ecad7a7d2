"""The article's eight requirements, judged from what a game showed while it was played.

Each rule takes the records of all runs and says what is wrong, what was not seen, and what was.
What was not seen is missing only if all runs were played; if time ran out, it is not judged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

from .notes import Tick
from .pixels import Color, is_near
from .record import PLANS, GameRecord, Look, count_whole
from .scene import (
    Text,
    is_brown_or_yellow,
    is_dark,
    is_light,
    is_light_blue,
    is_pipe_color,
)
from .words import Score, find_best, find_scores, follow_best, make_pattern

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

_APART = 12  # of 255: colours that differ less in every channel are one, shaded by what is near
_SEEN = 2  # pictures that show a colour, so that it counts as one of the game's
# Rounds after which something that never changed is no luck: of two ways to choose from, a game
# shows one alone in 0.8 % of all cases, and in as many it shows one of three in none of 12 rounds.
_MANY, _MANY_FOR_THREE = 8, 12
_MANY_LATER = 4  # rounds after a restart, for what only a restart changes
_THROUGH = 3  # pictures: a game may see only in the next one that the bird has hit a pipe
_STEADY = 0.9  # of what was read of the pipes: if so much is one gap, the rest is misread


@dataclass(frozen=True)
class Requirement:
    """One of the eight, by its number in the prompt; text is what it asks for, in short.

    ok is None if time ran out before it could be judged. frame names the picture that shows it, if
    there is one.
    """

    number: int
    ok: bool | None
    evidence: str
    frame: str
    text: str


@dataclass(frozen=True)
class _Findings:
    """What one rule found: what is wrong, what was not seen, and if neither, what was seen."""

    wrong: Sequence[str] = ()
    unseen: Sequence[str] = ()
    seen: str = ""


def judge_game(records: Sequence[GameRecord]) -> tuple[Requirement, ...]:
    """Judge all eight, in the order of the prompt; without records none of them holds."""
    judged: list[Requirement] = []
    for text, (rule, frame) in zip(_TEXTS, _RULES, strict=True):
        ok, evidence = _decide(rule(records), records) if records else (False, "not run")
        shown = frame if records else ""
        judged.append(Requirement(len(judged) + 1, ok, evidence, shown, text))
    return tuple(judged)


def _decide(found: _Findings, records: Sequence[GameRecord]) -> tuple[bool | None, str]:
    """Return whether a requirement holds, None if too few runs were played to say so, and why."""
    whole = count_whole(records)
    if whole == len(PLANS):
        return _say([*found.wrong, *found.unseen], found.seen)
    if found.unseen and not found.wrong:
        return None, f"not judged: {whole} of {len(PLANS)} runs were played in the time"
    return _say(found.wrong, found.seen)


def _judge_pygame(records: Sequence[GameRecord]) -> _Findings:
    shown = [r for r in records if r.ticks and r.size[0]]
    if not shown:
        return _Findings(["no window of pygame was opened, or nothing was shown in it"])
    (width, height), n = shown[0].size, sum(len(r.ticks) for r in shown)
    seen = f"a window of {width} x {height} pixels, {n:,} pictures in {len(shown)} runs"
    return _Findings(seen=seen)


def _judge_background(records: Sequence[GameRecord]) -> _Findings:
    first = [c for r in records if (c := _opening(r.looks))]
    if not first:
        return _Findings(unseen=["nothing was seen to cover the screen"])
    rounds = _list_looks(records)
    every = _tell_apart(w.background for looks in rounds for w in looks if w.background)
    problems = []
    if odd := [c for c in first if not is_light_blue(c)]:
        problems.append(
            f"{len(odd)} of {len(first)} runs start with {_name(odd[0])}, not light blue"
        )
    if dark := [c for c in every if not is_light(c)]:
        problems.append(f"{_name(dark[0])} is not light")
    always = [f"it is always {_name(first[0])}"] if len(every) < 2 else []
    seen = f"starts with {_name(first[0])}; {len(every)} colours seen, all light"
    # A game begins with light blue: only later rounds tell whether it ever chooses another.
    later = [looks for looks in rounds if looks[0].phase in ("again", "third")]
    return _sort(problems, always, len(later) >= _MANY_LATER, seen)


def _list_looks(records: Sequence[GameRecord]) -> list[list[Look]]:
    """Return the looks at games in play, round by round: a veil, over a menu or a lost game, is no
    other colour."""
    rounds = [part for record in records for part in record.rounds()]
    moving = [[look for look in part if look.moving] for part in rounds]
    return list(filter(None, moving)) or rounds


def _opening(looks: Sequence[Look]) -> Color | None:
    """Return the first background, or that of the first picture in play if a menu hides it."""
    shown = [look.background for look in looks if look.background]
    played = [look.background for look in looks if look.background and look.moving]
    return next((c for c in (*shown[:1], *played[:1]) if is_light_blue(c)), (*shown, None)[0])


def _judge_space(records: Sequence[GameRecord]) -> _Findings:
    presses = ups = 0
    for ticks in (_drop_repeats(r.ticks) for r in records):
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
        return _Findings(unseen=["the bird was not seen to move, so no press could be judged"])
    evidence = f"{ups} of {presses} presses sent the bird upwards, or slowed its fall"
    return _Findings([evidence] if ups < 0.5 * presses else [], seen=evidence)


def _drop_repeats(ticks: Sequence[Tick]) -> list[Tick]:
    """Return the ticks in which something had moved, with the keys pressed until the next."""
    moved: list[Tick] = []
    for tick in ticks:
        if not moved or (tick.bird, tick.pipes) != (moved[-1].bird, moved[-1].pipes):
            moved.append(tick)
        elif tick.key and not moved[-1].key:
            moved[-1] = replace(moved[-1], key=tick.key)
    return moved


def _judge_bird(records: Sequence[GameRecord]) -> _Findings:
    rounds = [[w.bird for w in part if w.bird and w.moving] for r in records for part in r.rounds()]
    looks = [Counter(birds).most_common(1)[0][0] for birds in rounds if birds]
    if not looks:
        return _Findings(unseen=["nothing was seen that keeps its place and moves up and down"])
    shapes = Counter("circle" if shape == "ellipse" else shape for shape, _ in looks)
    colors = _tell_apart((color for _, color in looks), least=1)
    n, problems = len(looks), _find_misfit(colors, is_dark, "is not dark")
    if odd := [shape for shape in shapes if shape not in _SHAPES]:
        problems.insert(0, f"it is drawn as {', '.join(odd)}")
    always = _find_sameness(colors, "its")
    if len(shapes) < 2:
        always.insert(0, f"its shape is always {', '.join(shapes)}")
    elif n >= _MANY_FOR_THREE and (never := [s for s in _SHAPES if s not in shapes]):
        always.insert(0, f"its shape was never {' or '.join(never)} in {n} rounds")
    counts = ", ".join(f"{seen} {shape}" for shape, seen in shapes.most_common())
    seen = f"{counts} in {n} rounds; {len(colors)} colours, all dark"
    return _sort(problems, always, n >= _MANY, seen)


def _judge_land(records: Sequence[GameRecord]) -> _Findings:
    rounds = _list_looks(records)
    lands = [look.land for looks in rounds for look in looks if look.land]
    colors = _tell_apart(lands)
    if len(lands) < 0.5 * sum(map(len, rounds)) or not colors:
        return _Findings(["no band was seen along the bottom of the screen"])
    problems = _find_misfit(colors, is_brown_or_yellow, "is neither dark brown nor yellow")
    seen = f"{len(colors)} colours seen: {', '.join(map(_name, [*colors][:3]))}"
    return _sort(problems, _find_sameness(colors, "its"), len(rounds) >= _MANY, seen)


def _judge_score(records: Sequence[GameRecord]) -> _Findings:
    rounds = _list_rounds(records)
    passed = sum(ticks[-1].passed for ticks in rounds)
    if not passed:
        return _Findings(unseen=[f"not seen: the bird got past no pipe in {len(rounds)} rounds"])
    scores = _list_scores(records)
    if not scores:
        return _Findings(
            [f"the bird passed {passed} pipes, and no number on the screen grew with them"]
        )
    size = next(r.size for r in records if r.ticks)
    score = next((s for s in scores if _is_top_right(s.text, size)), scores[0])
    text = score.text
    place = f"'{text.words}' at x {text.x:.0f} to {text.right:.0f}, y {text.y:.0f}"
    if not _is_top_right(text, size):
        return _Findings([f"it grows, but not at the top right: {place}"])
    if any(flies_through(r.in_phase("play", "again", "third", "falling")) for r in records):
        return _Findings(["the bird hit a pipe, and both went on as if it had not"])
    return _Findings(seen=f"{place}, grew {score.grown} times as {score.passed} pipes passed")


def flies_through(ticks: Sequence[Tick]) -> bool:
    """Return whether bird and pipes went on moving while one was well inside the other."""
    birds = [tick.bird for tick in ticks if tick.bird]
    if not birds:
        return False
    place, width = median(bird.x for bird in birds), median(bird.w for bird in birds)
    in_a_row = 0
    for before, tick in pairwise(ticks):
        bird = tick.bird
        inside = (
            bird is not None
            and abs(bird.x - place) <= 4  # else something else was taken for it
            and abs(bird.w - width) <= 4
            and any(
                p.x < bird.x
                and bird.right < p.right
                and (bird.y < p.top - 6 or bird.bottom > p.bottom + 6)
                for p in tick.pipes
            )
        )
        moves = [p.x for p in before.pipes] != [p.x for p in tick.pipes]
        in_a_row = in_a_row + 1 if inside and moves else 0
        if in_a_row == _THROUGH:
            return True
    return False


def _judge_pipes(records: Sequence[GameRecord]) -> _Findings:
    ticks = [t for r in records for t in r.in_phase("start", "play", "again") if t.pipes]
    seen_at = Counter((round(p.top), round(p.bottom)) for t in ticks for p in t.pipes if p.x > 0)
    steady = {gap for gap, n in seen_at.items() if n > 4}  # a text may hide an edge for a moment
    gaps = steady or set(seen_at)
    rounds = [looks for looks in _list_looks(records) if any(look.pipes for look in looks)]
    colors = _tell_apart(color for looks in rounds for look in looks for color in look.pipes)
    if not gaps:
        nothing = "no pipe was seen: nothing rises from the bottom or hangs from the top"
        return _Findings(unseen=[nothing])
    heights = [t.bird.h for t in ticks if t.bird]
    bird = sorted(heights)[len(heights) // 2] if heights else 0.0
    passed = sum(max((t.passed for t in r.in_phase("play", "again")), default=0) for r in records)
    smallest = min(bottom - top for top, bottom in gaps)
    problems, always = [], []
    often = seen_at.most_common(1)[0][0]
    alike = sum(
        n
        for (top, bottom), n in seen_at.items()
        if abs(top - often[0]) < 4 and abs(bottom - often[1]) < 4
    )
    if alike > _STEADY * seen_at.total():
        always = [f"the gap is always from y {often[0]} to {often[1]}"]
    if smallest < 1.5 * bird:
        problems.append(f"a gap of {smallest} pixels, and the bird is {bird:.0f} high")
    blocked = f"the bird got past no pipe; the smallest gap is {smallest} pixels"
    unseen = [] if passed else [blocked]
    if not colors:
        return _Findings(problems, [*unseen, "no whole pipe was seen in the pictures"])
    problems += _find_misfit(colors, is_pipe_color, "is not dark green, light brown or dark gray")
    always += _find_sameness(colors, "their")
    seen = f"{len(gaps)} different gaps, the smallest {smallest} pixels for a bird of {bird:.0f}"
    seen += f"; {passed} pipes passed; {len(colors)} colours"
    return _sort(problems, always, len(rounds) >= _MANY, seen, unseen)


def _judge_end(records: Sequence[GameRecord]) -> _Findings:
    played = [r for r in records if r.plan.when != "look"]
    overs = [(r, r.in_phase("over")) for r in played]
    ends = [(r, ticks[-1]) for r, ticks in overs if ticks]
    if not ends:
        return _Findings(unseen=["the game was never seen to be lost"])
    problems, unseen = [], []
    score = next(iter(_list_scores(records)), None)
    best = [found for r, _ in ends if (found := _read_best(r, "over", score))]
    if not best:
        problems.append("no best score is shown when the game is lost")
    problems += _judge_best([r for r, _ in ends], score)
    outside = [text for r, tick in ends for text in tick.texts if not _is_inside(text, r.size)]
    if outside:
        problems.append(f"'{outside[0].words}' does not fit into the screen")
    for key in ("q", "escape"):
        named = "Esc" if key == "escape" else key
        # A run that came to its end before the key was pressed, or was left out, says nothing.
        asked = [r for r in played if r.plan.key == key and (r.quit_by_key or r.stayed)]
        lost = [r for r in asked if r.plan.when == "over"]
        if not lost:
            unseen.append(f"not seen: whether {named} quits when the game is lost")
        elif not any(r.quit_by_key for r in lost):
            in_play = any(r.quit_by_key for r in asked)
            where = "when the game is lost, only in play" if in_play else "the game"
            problems.append(f"{named} does not quit {where}")
    tried = [r for r, _ in ends if r.phase not in ("over", "restart") and r.ended != "left"]
    if not any(_has_restarted(r) for r, _ in ends):
        if tried:
            problems.append("SPACE does not start the game again")
        else:
            unseen.append("not seen: whether SPACE starts the game again")
    shown = best[0][0] if best else ""
    seen = f"'{shown}' inside the screen; q and Esc quit; SPACE starts again"
    return _Findings(problems, unseen, seen)


_RULES: tuple[tuple[Callable[[Sequence[GameRecord]], _Findings], str], ...] = (
    (_judge_pygame, "start"),
    (_judge_background, "start"),
    (_judge_space, "play"),
    (_judge_bird, "play"),
    (_judge_land, "start"),
    (_judge_score, "play"),
    (_judge_pipes, "play"),
    (_judge_end, "over"),
)


def _tell_apart(colors: Iterable[Color], least: int = _SEEN) -> list[Color]:
    """Return the colours that look different and are seen often enough, the most frequent first."""
    groups: dict[Color, int] = {}
    for color, n in Counter(colors).most_common():
        known = next((c for c in groups if is_near(c, color, _APART)), color)
        groups[known] = groups.get(known, 0) + n
    often = [color for color, n in groups.items() if n >= least]
    return often or list(groups)


def _find_misfit(colors: Sequence[Color], fits: Callable[[Color], bool], wrong: str) -> list[str]:
    """Return what is wrong with the first colour that does not fit."""
    return [f"{_name(color)} {wrong}" for color in colors if not fits(color)][:1]


def _find_sameness(colors: Sequence[Color], whose: str) -> list[str]:
    """Return what is wrong with a colour that should be chosen at random, and is the only one."""
    return [f"{whose} colour is always {_name(colors[0])}"] if len(colors) < 2 else []


def _sort(
    wrong: list[str], always: list[str], enough: bool, seen: str, unseen: Sequence[str] = ()
) -> _Findings:
    """Return the findings; what never changes is wrong only if enough rounds were seen."""
    if enough:
        return _Findings([*wrong, *always], unseen, seen)
    return _Findings(wrong, [*unseen, *always], seen)


def _say(problems: Sequence[str], seen: str) -> tuple[bool, str]:
    return not problems, "; ".join(problems) or seen


def _name(color: Color | None) -> str:
    return f"the colour {color}" if color else "no colour"


def _is_top_right(text: Text, size: tuple[int, int]) -> bool:
    """Return whether a text is whole and in the upper right part of the screen."""
    inside = _is_inside(text, size)
    return inside and text.middle[0] > 0.55 * size[0] and text.bottom < 0.3 * size[1]


def _is_inside(text: Text, size: tuple[int, int]) -> bool:
    """Return whether all of it is on the screen."""
    return text.x >= 0 and text.y >= 0 and text.right <= size[0] and text.bottom <= size[1]


def _list_rounds(records: Sequence[GameRecord]) -> list[list[Tick]]:
    played = [r.in_phase(phase) for r in records for phase in ("play", "again")]
    return [ticks for ticks in played if ticks]


def _list_scores(records: Sequence[GameRecord]) -> list[Score]:
    """Return the numbers that grow with the pipes, those first that are no best score."""
    return find_scores(_list_rounds(records))


def _read_best(record: GameRecord, phase: str, score: Score | None) -> tuple[str, int] | None:
    """Return the words and the number of the best score at the end of a phase."""
    over, again = record.in_phase("over")[-1:], record.in_phase("over again")[-1:]
    ticks = again if phase == "over again" else over
    found = find_best(ticks[0].texts) if ticks else None
    if found or not score or not (over and again):
        return found
    lost = record.ticks.index(over[0])  # the bird falls in all rounds
    lost_again = record.ticks.index(again[0])
    first = score.read_last([t for t in record.ticks[:lost] if t.phase in ("play", "falling")])
    second = score.read_last(
        [t for t in record.ticks[lost:lost_again] if t.phase in ("again", "falling")]
    )
    if first is None or second is None:
        return None
    return follow_best(over[0].texts, again[0].texts, first, second)


def _judge_best(records: Sequence[GameRecord], score: Score | None) -> list[str]:
    """Return what is wrong with the number of the best score."""
    for record in records:
        first, second = (_read_best(record, phase, score) for phase in ("over", "over again"))
        if first and second and second[1] < first[1]:
            return [f"the best score falls from {first[1]} to {second[1]} in a new round"]
        reached = score.read_last(record.in_phase("play")) if score else None
        if first and score and reached is not None:
            if first[1] < reached:
                return [f"the best score shown is {first[1]}, and the score was {reached}"]
            if first[1] > reached + 2 * score.step:
                return [f"the best score shown is {first[1]}, and the score was {reached} at most"]
    return []


def _has_restarted(record: GameRecord) -> bool:
    """Return whether the bird moved again for half a second, with no text left that was only there
    when the game was lost."""
    ticks = record.in_phase("again")
    lost = {make_pattern(t) for tick in record.in_phase("over")[-1:] for t in tick.texts}
    played = {make_pattern(t) for tick in record.in_phase("play") for t in tick.texts}
    free = [t for t in ticks if not {make_pattern(x) for x in t.texts} & (lost - played)]
    heights = {round(t.bird.y) for t in free if t.bird}
    return len(free) >= 20 and len(heights) >= 5
