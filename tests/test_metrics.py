"""Repetition, loops, escapes and intervals, against published values and labelled runs."""

from __future__ import annotations

import json
import pydoc_data.topics
import random
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from qwqlab import paths
from qwqlab.errors import SettingError
from qwqlab.experiments import measure
from qwqlab.experiments.loops import find_loop
from qwqlab.experiments.metrics import distinct_n, escape_rate, find_run_loop
from qwqlab.sampling import Request, Run
from qwqlab.stats import wilson

LABELLED = Path(__file__).parent / "loops"
LABELS = json.loads((LABELLED / "labels.json").read_text(encoding="utf-8"))


def make_run(
    text: str = "", tokens: tuple[int, ...] = (), stop: str = "length", **more: Any
) -> Run:
    values: dict[str, Any] = {"ranks": (0,) * len(tokens), "escapes": (), "seconds": 1.0, **more}
    return Run(Request("p"), n_prompt=1, tokens=tokens, text=text, stop=stop, **values)


@pytest.mark.parametrize("name", LABELS)
def test_the_loop_finder_agrees_with_every_labelled_run(name: str) -> None:
    text = (LABELLED / name).read_text(encoding="utf-8")
    found = find_loop(text, ended=LABELS[name]["ended"])
    assert (found is not None) == LABELS[name]["loop"], found


def test_a_loop_of_hundreds_of_tokens_is_found_with_its_start_and_period() -> None:
    unit = random.Random(1).sample(range(1000, 9000), 350)
    loop = find_loop([*range(100), *unit * 4, *unit[:77]])
    assert loop is not None
    assert (loop.start, loop.period, loop.copied) == (100, 350, 1.0)
    assert loop.repeats == pytest.approx(4.2)


def test_one_changed_word_in_each_repetition_does_not_hide_a_loop() -> None:
    words = "red green blue black white brown grey pink gold silver".split()
    verse = "The old man went down to the {} harbour and looked for his boat all day long.\n"
    loop = find_loop("It began well. " + "".join(verse.format(word) for word in words))
    assert loop is not None
    assert loop.period == 19
    assert 0.9 < loop.copied < 1


def test_a_counter_that_grows_a_digit_does_not_hide_a_loop() -> None:
    loop = find_loop("".join(f"{n}. The keeper lit the lamp again.\n" for n in range(5, 130)))
    assert loop is not None
    assert loop.step == 1
    assert loop.repeats > 120


def test_a_loop_of_one_token_and_a_loop_of_one_long_word_are_found() -> None:
    assert find_loop([7] * 80) is not None
    assert find_loop("Dashcam" * 400) is not None
    assert find_loop("!" * 3000) is not None


def test_a_run_that_left_its_loop_does_not_end_in_one() -> None:
    looped = "I have a message for you. " * 30
    ending = "Then the wind dropped, the lamp went out, and Jack rowed home alone in the dark."
    assert find_loop(looped) is not None
    assert find_loop(looped + ending) is None


def test_a_loop_that_the_model_ended_is_found_up_to_the_end_token() -> None:
    tokens = [*range(50, 90), *[1, 2, 3, 4, 5, 6] * 20, 0]
    loop = find_loop(tokens, ended=True)
    assert loop is not None
    assert loop.start == 40


def test_too_few_repetitions_are_no_loop() -> None:
    unit = list(range(40))
    assert find_loop(unit * 2) is None
    assert find_loop([1, 2, 3, 4] * 10) is None


GOOD = {
    "unit tests": "".join(
        f"    def test_{name}(self):\n        self.assertEqual(convert({a}), {b})\n\n"
        for name, a, b in zip(
            "zero one small large negative freezing boiling body oven winter summer space".split(),
            (0, 1, 3, 900, -4, 0, 100, 37, 220, -12, 31, -270),
            (32, 33.8, 37.4, 1652, 24.8, 32, 212, 98.6, 428, 10.4, 87.8, -454),
            strict=True,
        )
    ),
    "multiplication table": "".join(f"7 x {n} = {7 * n}\n" for n in range(1, 40)),
    "powers": "".join(f"2 ** {n} is {2**n}\n" for n in range(40)),
    "ascii table": "".join(f"{n}  {n:#x}  {chr(n)}\n" for n in range(33, 127)),
    "json": json.dumps(
        [
            {"name": name, "age": age, "city": city, "active": True}
            for name, age, city in zip(
                "Ann Bo Cem Dora Eli Fay Gus Hana Ivo Jun Kim Lea".split(),
                (31, 25, 44, 19, 62, 37, 28, 51, 33, 47, 22, 58),
                "Oslo Rome Bonn Lima Kyiv Cork Nice Bath York Graz Faro Riga".split(),
                strict=True,
            )
        ],
        indent=2,
    ),
    "numbered list": "".join(
        f"{n}. {item}\n"
        for n, item in enumerate(
            (
                "Bake bread and let everyone shape a loaf.",
                "Build a fort out of chairs and blankets.",
                "Write a letter to someone far away.",
                "Sort the photographs of last summer.",
                "Learn a card trick from a book.",
                "Play charades with the neighbours.",
                "Mend the jumper with the torn sleeve.",
                "Draw a map of an island that nobody knows.",
                "Make soup from what is in the kitchen.",
                "Listen to a record from start to end.",
                "Plant basil in a cup.",
                "Read aloud to each other by candlelight.",
            ),
            start=1,
        )
    ),
    "poem with a refrain": "".join(
        f"{a}\n{b}\nand the tide came in, and the tide went out.\n\n"
        for a, b in (
            ("My father sold his boat for gold,", "my mother sold her ring,"),
            ("The winter took the harbour wall,", "the summer took the spring,"),
            ("My brother sailed for Newfoundland", "and never wrote a line,"),
            ("I kept the lamp, I kept the log,", "I kept the night for mine,"),
            ("They built a road along the cliff,", "they built a new hotel,"),
            ("The children learned another tongue", "and rang another bell,"),
        )
    ),
    "a cumulative rhyme": "".join(
        "This is " + " ".join(reversed(lines[: n + 1])) + "\n\n"
        for lines in [
            (
                "the house that Jack built.",
                "the malt that lay in",
                "the rat that ate",
                "the cat that killed",
                "the dog that worried",
                "the cow with the crumpled horn that tossed",
                "the maiden all forlorn that milked",
                "the man all tattered and torn that kissed",
                "the priest all shaven and shorn that married",
                "the cock that crowed in the morn that waked",
                "the farmer sowing his corn that kept",
            )
        ]
        for n in range(len(lines))
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_text_that_repeats_its_shape_is_no_loop(name: str) -> None:
    text = GOOD[name]
    assert find_loop(text) is None
    assert find_loop(text, ended=True) is None
    assert find_loop(text[: len(text) * 3 // 4]) is None


def test_the_standard_library_and_its_manual_hold_no_loop_wherever_they_are_cut() -> None:
    chance = random.Random(3407)
    folder = Path(sysconfig.get_paths()["stdlib"])
    sources = chance.sample(sorted(folder.glob("*.py")), 60)
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in sources]
    texts.extend(chance.sample(sorted(pydoc_data.topics.topics.values()), 40))
    texts.append((paths.data_dir() / "texts" / "evaluation.txt").read_text(encoding="utf-8"))
    found = []
    for text in texts:
        for size in (900, 4500):
            start = chance.randrange(max(1, len(text) - size + 1))
            if find_loop(text[start : start + size]):
                found.append(text[start : start + size][-200:])
    assert not found


@pytest.mark.parametrize("text", ["", "a", "\n" * 3, "word " * 3, "\ud800 \0 x", "9" * 9000])
def test_the_loop_finder_survives_any_text(text: str) -> None:
    loop = find_loop(text)
    assert loop is None or loop.start >= 0


def test_a_runs_loop_starts_at_a_token() -> None:
    run = make_run("ab " * 30, tokens=(8, 9, *(1, 2, 3) * 40))
    assert measure(run).loop_start == 2
    counting = "".join(f"{n}. The keeper lit the lamp again.\n" for n in range(90))
    loop = find_run_loop(make_run("x" * len(counting) + counting, tuple(range(1000))))
    assert loop is not None
    assert loop.start == pytest.approx(500, abs=5)


def test_runs_shorter_than_an_n_gram_repeat_nothing() -> None:
    assert distinct_n([1, 2, 3], 4) == distinct_n([], 2) == 1.0


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # Newcombe (1998), Statistics in Medicine 17, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(
    successes: int, n: int, low: float, high: float
) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_of_nothing_is_everything_and_impossible_counts_are_refused() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 9)[0] == 0.0
    assert wilson(9, 9)[1] == 1.0
    for bad in ((2, 1), (-1, 3)):
        with pytest.raises(ValueError, match="give"):
            wilson(*bad)


def test_the_escape_rate_weighs_every_token_alike() -> None:
    runs = [
        make_run(tokens=(1,) * 10, escapes=(0, 3)),
        make_run(tokens=(1,) * 90, escapes=(5,)),
    ]
    assert escape_rate(runs) == pytest.approx(3 / 100)
    assert escape_rate([]) == 0.0


def test_a_pair_of_the_engine_is_no_run_and_the_sentence_says_so() -> None:
    pair: Any = (0, make_run("text", (1, 2), "end"))
    with pytest.raises(SettingError, match=r"tuple is not a Run; Engine.run yields \(index, run\)"):
        measure(pair)


def test_measure_tells_a_good_run_from_a_runaway() -> None:
    good = measure(make_run("```python\nprint(1)\n```", tuple(range(12)), "end"))
    assert (good.valid_code, good.loop, good.runaway, good.n_tokens) == (True, False, False, 12)
    bad = measure(make_run("```python\nx = (" + "1, " * 300, (3, *(1, 2) * 300)))
    assert (bad.valid_code, bad.loop, bad.loop_start, bad.runaway) == (False, True, 1, True)
    assert bad.why_invalid.endswith("(the block is cut off)")
    assert bad.seq_rep_4 > 0.9
    assert json.loads(json.dumps(bad.to_dict()))["loop_period"] == 2
