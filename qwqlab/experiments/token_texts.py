"""Texts that try a tokenizer where it can go wrong: a list written by hand, and made ones.

The made ones consist of what a tokenizer's rules turn on: the classes of characters in its pattern,
marks that compose, white space of all kinds, special tokens whole and cut, and pieces of the
vocabulary put side by side.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .. import paths
from ..tokenizers import LlamaTokenizer

SPACES = " \t\n\r\v\f\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2003\u2009\u200b\u2028\u2029\u202f\u3000\ufeff"
APOSTROPHES = "'’`ʼ＇"
ENDINGS = ("s t re ve m ll d S T RE Ve M lL D ſ K x").split()
# The first and the last letter of scripts: Latin, Greek, Cyrillic, Hebrew, Arabic, Devanagari,
# Thai, Hangul, kana, Han.
SCRIPTS = ("az", "AZ", "αω", "ая", "את", "ءي", "अह", "กฮ", "가힣", "ぁん", "一龥")
MARKS = "\u0300\u0301\u0338\u0308\u0323\u0327\u0345\u0653\u093c\u0e31\u20dd\ufe0f"
DIGITS = "0123456789٣५๓½²Ⅷ①一"
SYMBOLS = '!#$%&()*+,-./:;<=>?@[]^_{|}~«»…—→€©™\\"'
JOINED = ("👩‍💻", "🏳️‍🌈", "👍🏽", "🇨🇭🇯🇵", "❤️", "1️⃣", "👨‍👩‍👧‍👦")
JAMO = "\u1100\u1161\u11a8\u1112\u1175\u11c2"
SINGLES = "\u212b\u2126\u0340\u0958\uf900\ufb1d\u1e9b\u0958\U0001d15e"  # NFC writes them otherwise


@dataclass(frozen=True)
class Text:
    """A text of the corpus; cause says why QwQ-32B's two tokenizers part there, None if not."""

    name: str
    text: str
    cause: str | None


def read_corpus() -> list[Text]:
    """The texts of data/texts/tokenizer.json.

    >>> [text.name for text in read_corpus()][:2]
    ['empty', 'plain']
    """
    path = paths.data_dir() / "texts" / "tokenizer.json"
    return [Text(**values) for values in json.loads(path.read_text(encoding="utf-8"))]


def list_pieces(tokenizer: LlamaTokenizer) -> list[str]:
    """The tokens of a vocabulary that are whole characters: what `make_texts` puts together."""
    pieces = tokenizer.pieces(range(tokenizer.n_tokens))
    return [piece for piece in pieces if piece and "\ufffd" not in piece]


def make_texts(n: int, seed: int = 3407, pieces: Sequence[str] = ()) -> list[str]:
    """n strings of 1 to 12 fragments each. `pieces` are tokens of the vocabulary under test.

    >>> make_texts(2) == make_texts(3)[:2], len(make_texts(5))
    (True, 5)
    """
    rng = random.Random(seed)
    makers = _list_makers(rng, pieces)
    return ["".join(rng.choice(makers)() for _ in range(rng.randint(1, 12))) for _ in range(n)]


def _list_makers(rng: random.Random, pieces: Sequence[str]) -> list[Callable[[], str]]:
    def run(letters: str, most: int = 4) -> str:
        return "".join(rng.choice(letters) for _ in range(rng.randint(1, most)))

    def word() -> str:
        ends = rng.choice(SCRIPTS)
        letters = (chr(rng.randint(ord(ends[0]), ord(ends[1]))) for _ in range(rng.randint(1, 6)))
        return "".join(letters)

    def anything() -> str:
        code = rng.choice((rng.randrange(0x500), rng.randrange(0x10000), rng.randrange(0x110000)))
        return chr(code) if not 0xD800 <= code < 0xE000 else "\ufffd"

    def composed() -> str:
        return word() + run(MARKS, 2)

    def special() -> str:
        token = rng.choice(SPECIALS)
        cut = rng.randint(1, len(token)) if rng.random() < 0.3 else len(token)
        return token[:cut]

    makers: list[Callable[[], str]] = [
        word,
        word,
        composed,
        anything,
        special,
        lambda: run(SPACES),
        lambda: " " * rng.randint(1, 9),
        lambda: rng.choice(("\n", "\r\n", "\n\n", " \n", "\t")),
        lambda: rng.choice(APOSTROPHES) + rng.choice(ENDINGS),
        lambda: run(DIGITS),
        lambda: run(SYMBOLS),
        lambda: rng.choice(JOINED),
        lambda: run(JAMO, 3),
        lambda: rng.choice(SINGLES),
    ]
    if pieces:
        makers += [lambda: rng.choice(pieces)] * 4
    return makers


SPECIALS = (
    "<|endoftext|> <|im_start|> <|im_end|> <|vision_pad|> <|fim_prefix|> <|file_sep|> <think> "
    "</think> <tool_call> </tool_response>"
).split()
