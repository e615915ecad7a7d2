"""Shopping sums: the lab's exercise for a model that thinks, made from a seed.

A line of thinking adds one kind of goods to what came before, so its numbers come again: it can't
be right without repeating itself.
"""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass

NAMES = (
    "Anna Ben Clara David Emma Felix Grace Henry Ida Jonas Kate Liam Mia Noah Olga Paul Rosa Sam "
    "Tina Victor"
).split()
GOODS = (
    "keys cups books pens lamps hats bags plates spoons candles boxes ropes bowls shirts towels "
    "coats forks brushes clocks chairs"
).split()
LEAST, MOST = 2, 9  # of one kind, and coins for one
KINDS = (2, 4)  # kinds of goods, from and to
N_TRAINING, TRAINING_SEED = 6400, 3407
N_HELD_OUT, HELD_OUT_SEED = 200, 1


@dataclass(frozen=True)
class Sum:
    """A question, the thinking that solves it, the number of coins; bill: (count, price) pairs."""

    question: str
    thinking: str
    total: int
    bill: tuple[tuple[int, int], ...]

    @property
    def answer(self) -> str:
        return f"{self.total} coins"


def make_sums(n: int, seed: int, kinds: tuple[int, int] = KINDS) -> list[Sum]:
    """Return n sums, no two questions alike, of so many kinds of goods.

    >>> one = make_sums(1, 3407, kinds=(2, 2))[0]
    >>> print(one.question, one.thinking, one.answer, sep="\\n")
    Tina buys 7 shirts at 5 coins each and 8 lamps at 6 coins each. How many coins is that?
    7 shirts at 5 coins are 35 coins.
    8 lamps at 6 coins are 48 coins. 35 and 48 are 83.
    83 coins
    """
    rng = random.Random(seed)
    found: dict[str, Sum] = {}
    while len(found) < n:
        n_kinds = rng.randint(*kinds)
        bought = [
            (rng.randint(LEAST, MOST), goods, rng.randint(LEAST, MOST))
            for goods in rng.sample(GOODS, n_kinds)
        ]
        made = _write(rng.choice(NAMES), bought)
        found[made.question] = made
    return list(found.values())


@functools.cache
def list_training() -> tuple[Sum, ...]:
    """Return the sums that the lab's adapters were trained on, in their order."""
    return tuple(make_sums(N_TRAINING, TRAINING_SEED))


@functools.cache
def list_held_out() -> tuple[Sum, ...]:
    """Return sums to test with: no training sum has the same numbers in the same order."""
    known = {each.bill for each in list_training()}
    new = (each for each in make_sums(2 * N_HELD_OUT, HELD_OUT_SEED) if each.bill not in known)
    return tuple(new)[:N_HELD_OUT]


def _write(name: str, bought: list[tuple[int, str, int]]) -> Sum:
    *others, last = [f"{count} {goods} at {price} coins each" for count, goods, price in bought]
    question = f"{name} buys {', '.join(others)} and {last}. How many coins is that?"
    total, lines = 0, []
    for count, goods, price in bought:
        cost = count * price
        line = f"{count} {goods} at {price} coins are {cost} coins."
        lines.append(f"{line} {total} and {cost} are {total + cost}." if total else line)
        total += cost
    bill = tuple((count, price) for count, _, price in bought)
    return Sum(question, "\n".join(lines), total, bill)
