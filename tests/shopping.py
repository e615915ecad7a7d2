"""How data/shopping was made: shopping lists in words, and the same as JSON."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

from qwqlab.tuning import Example

INSTRUCTION = "List what is bought as JSON."
# Singular and plural; the last ten are never trained on.
GOODS = [tuple(pair.split("/")) for pair in (
    "apple/apples pear/pears lemon/lemons onion/onions carrot/carrots egg/eggs candle/candles "
    "pencil/pencils button/buttons plate/plates spoon/spoons cup/cups towel/towels lamp/lamps "
    "chair/chairs stamp/stamps brush/brushes rope/ropes nail/nails bag/bags book/books "
    "coat/coats hat/hats shoe/shoes bowl/bowls melon/melons potato/potatoes cake/cakes "
    "bottle/bottles pan/pans kite/kites drum/drums clock/clocks fork/forks basket/baskets "
    "mirror/mirrors ribbon/ribbons peach/peaches tomato/tomatoes needle/needles"
).split()]  # fmt: skip
N_HELD_OUT_GOODS = 10
NUMBERS = "one two three four five six seven eight nine ten eleven twelve".split()
SENTENCES = (
    "{list}, please.",
    "I would like {list}.",
    "Could you bring {list}?",
    "We still need {list} for tomorrow.",
    "Please order {list}.",
    "She bought {list} at the market.",
    "Put {list} on the bill.",
    "My brother asked for {list}.",
)


def make_examples(n: int, seed: int, goods: Sequence[tuple[str, ...]]) -> list[Example]:
    """Return n examples, no two alike, of one to three kinds of goods each."""
    rng = random.Random(seed)
    found: dict[str, Example] = {}
    while len(found) < n:
        bought = rng.sample(goods, rng.choice((1, 2, 2, 3)))
        counts = [rng.randint(1, len(NUMBERS)) for _ in bought]
        parts = [_say(count, names, rng) for count, names in zip(counts, bought, strict=True)]
        listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
        text = rng.choice(SENTENCES).format(list=listed)
        answer = {names[-1]: count for count, names in zip(counts, bought, strict=True)}
        found[text] = Example(INSTRUCTION, text[0].upper() + text[1:], json.dumps(answer))
    return list(found.values())


def _say(count: int, names: tuple[str, ...], rng: random.Random) -> str:
    singular, plural = names
    if count == 1:
        return f"{'an' if singular[0] in 'aeiou' else 'a'} {singular}"
    return f"{rng.choice((str(count), NUMBERS[count - 1]))} {plural}"


def make_sets() -> dict[str, list[Example]]:
    """Return the training set, and two to test with: of known goods, and of new ones."""
    known, new = GOODS[:-N_HELD_OUT_GOODS], GOODS[-N_HELD_OUT_GOODS:]
    train = make_examples(360, 3407, known)
    asked = {example.input for example in train}
    held_out = [each for each in make_examples(60, 1, known) if each.input not in asked][:40]
    return {"train": train, "held_out": held_out, "new_goods": make_examples(40, 2, new)}
