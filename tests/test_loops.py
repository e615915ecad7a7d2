"""The loop finder keeps its promise for random cycles of 2 to 50 tokens, and sees no others."""

from __future__ import annotations

import pydoc_data.topics
import random
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from qwqlab import paths
from qwqlab.experiments.loops import MIN_EXACT, find_loop
from qwqlab.models import open_tokenizer

SEED = 3407
N, N_LONG = 200, 5000
ALPHABETS = (2, 2, 2, 3, 4, 6, 10, 25, 50)
WORDS = [f"{a}{b}" for a in ("ba", "de", "fi", "go", "lu") for b in "klmnprstvz"]

Tokens = list[int]
FORMS: dict[str, Callable[[Tokens], Sequence[int] | str]] = {
    "ids": lambda tokens: tokens,
    "words": lambda tokens: " ".join(WORDS[token] for token in tokens),
    "numbers": lambda tokens: ", ".join(map(str, tokens)),
    "lines of bits": lambda tokens: "\n".join(f"{token:06b}" for token in tokens),
    "letters with no space": lambda tokens: "".join(chr(97 + token % 26) for token in tokens),
    "digits with no space": lambda tokens: "".join(f"{token:02}" for token in tokens),
}

# Two runs as models write them: eight rows of bits, and a chain of yes and no.
ROWS = (0x2F, 0x2D, 0x90, 0xA6, 0x9A, 0x5B, 0xD6, 0xD3)
BITS = "".join(f"[{', '.join(f'{row:08b}')}],\n" for row in ROWS) * 6
ANSWERS = "001011110010111100101110111111110011110010011010010100000100"
YES_NO = f"{' '.join(('no', 'yes')[int(bit)] for bit in ANSWERS)}. " * 8


CASES = ((BITS, 6), (YES_NO, 8))


@pytest.mark.parametrize(("text", "repeats"), CASES)
def test_a_loop_of_two_words_is_found(text: str, repeats: int) -> None:
    loop = find_loop(text)
    assert loop is not None
    assert (loop.start, loop.repeats, loop.copied) == (0, repeats, 1.0)


@pytest.mark.parametrize("name", ["qwq-32b", "smollm2-135m"])
def test_a_loop_of_two_words_is_found_in_token_ids(name: str) -> None:
    with open_tokenizer(name) as tokenizer:
        written = tokenizer.encode([text.rstrip() for text, _ in CASES])
    for ids, (_, repeats) in zip(written, CASES, strict=True):
        loop = find_loop(ids)
        assert loop is not None
        assert loop.repeats == pytest.approx(repeats, abs=0.1)
        assert loop.start <= 1


def make_block(chance: random.Random, size: int, n: int) -> Tokens:
    return [chance.randrange(size) for _ in range(n)]


def make_cycle(chance: random.Random, size: int) -> tuple[Tokens, int]:
    """A random text that ends in an exact cycle, and where it begins, at the latest."""
    before = make_block(chance, size, chance.randrange(400))
    block = make_block(chance, size, chance.randrange(1, 200))
    repeats, elements = MIN_EXACT
    times = max(repeats, -(-elements // len(block))) + chance.randrange(3)
    return before + block * times + block[: chance.randrange(len(block))], len(before)


def make_changing_cycle(chance: random.Random, size: int) -> tuple[Tokens, int]:
    """One whose repetitions change one token in fifty, or leave it out, or bring one in."""
    tokens = make_block(chance, size, chance.randrange(400))
    block = make_block(chance, size, chance.randrange(50, 200))
    start = len(tokens)
    for _ in range(5):
        for _ in range(len(block) // 50):
            at = chance.randrange(len(block))
            block[at : at + chance.randrange(2)] = make_block(chance, size, chance.randrange(2))
        tokens += block
    return tokens + block[: chance.randrange(len(block))], start


def check_cycles(n: int) -> None:
    chance = random.Random(SEED)
    print(f"seed {SEED}, {n} exact cycles, {n} that change")
    for _ in range(n):
        size, form = chance.choice(ALPHABETS), chance.choice(list(FORMS))
        tokens, start = make_cycle(chance, size)
        written = FORMS[form](tokens)
        loop = find_loop(written)
        assert loop is not None, (form, written)
        assert loop.start <= len(FORMS[form](tokens[:start])) + 2, (form, written)
    missed = []
    for _ in range(n):
        size, form = chance.choice(ALPHABETS), chance.choice(("ids", "words"))
        tokens, _ = make_changing_cycle(chance, size)
        if find_loop(FORMS[form](tokens)) is None:
            missed.append((form, tokens))
    print(f"missed of those that change: {len(missed)}")
    assert len(missed) <= n // 100, missed[0]


def check_random_texts(n: int) -> None:
    chance = random.Random(SEED)
    print(f"seed {SEED}, {n} random texts without a cycle")
    for _ in range(n):
        tokens = make_block(chance, chance.choice(ALPHABETS), chance.randrange(60, 1500))
        form = chance.choice(list(FORMS))
        assert find_loop(FORMS[form](tokens)) is None, (form, tokens)


def test_every_random_cycle_is_found_and_none_in_random_text() -> None:
    check_cycles(N)
    check_random_texts(N)


@pytest.mark.nightly
def test_thousands_of_random_cycles_are_found_and_none_in_random_text() -> None:
    check_cycles(N_LONG)
    check_random_texts(N_LONG)


def test_a_cycle_counts_though_what_comes_before_it_is_nearly_the_same() -> None:
    words = WORDS[:20]
    almost = [*words[:12], "sea", *words[13:]]
    loop = find_loop(" ".join([*almost, *words * 3]))
    assert loop is not None
    assert (loop.period, loop.copied) == (20, 1.0)


def test_a_cycle_counts_though_a_longer_passage_came_twice() -> None:
    passage = [*range(100, 160), *[*range(17)] * 8]
    loop = find_loop(passage * 2)
    assert loop is not None
    assert (loop.start, loop.period, loop.repeats) == (256, 17, 8.0)


def test_the_longest_cycle_counts_though_its_block_ends_in_one() -> None:
    block = [*range(300), *[7] * 400]
    loop = find_loop([*range(1000, 1100), *block * 3])
    assert loop is not None
    assert (loop.start, loop.period, loop.repeats) == (100, 700, 3.0)


def list_good_texts() -> list[str]:
    """Python's standard library and its manual, and the lab's texts."""
    sources = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    sources += sorted((paths.data_dir() / "texts").glob("*.txt"))
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in sources]
    return texts + sorted(pydoc_data.topics.topics.values())


@pytest.mark.nightly
def test_good_text_holds_no_loop_wherever_it_is_cut() -> None:
    chance, texts, n, found = random.Random(SEED), list_good_texts(), 5000, []
    for _ in range(n):
        text = chance.choice(texts)
        start = chance.randrange(len(text))
        part = text[start : start + chance.choice((900, 4500))]
        if find_loop(part, ended=chance.random() < 0.5):
            found.append(part)
    print(f"seed {SEED}, {n} parts of {len(texts)} texts, {len(found)} false alarms")
    assert len(found) <= n // 1000, found[0]
