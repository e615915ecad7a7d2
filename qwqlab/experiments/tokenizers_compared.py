"""Where llama.cpp and transformers make other tokens of the same text, and why.

A cause is proven, not guessed: a copy of transformers' tokenizer is changed in one respect to what
llama.cpp does, and the cause is the smallest set of changes after which both give the same tokens.
The texts to try are `read_corpus`, written by hand, and `make_texts`, made of what a tokenizer's
rules turn on: the classes of characters in its pattern, marks that compose, white space of all
kinds, special tokens whole and cut, and pieces of the vocabulary put side by side.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from .. import paths
from ..errors import SettingError
from ..models import QWQ_PATTERN, LlamaTokenizer, TransformersTokenizer

UNEXPLAINED = "unexplained"
CAUSES = {
    "normalisation": "transformers puts the text into a normal form of Unicode before it makes "
    "tokens; llama.cpp takes it as it is written",
    "added tokens": "one side takes a token such as <|fim_prefix|> for a special one, which plain "
    "text cannot hold, and the other for an ordinary one",
    "pre-tokenizer": "the two cut the text into words by different rules",
    "Unicode version": "a character is a letter or a digit in the tables of one and not in the "
    "older tables of the other",
}
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


@dataclass(frozen=True)
class Difference:
    """A text of which the two make other tokens.

    place is its index among the texts, first the index of the first token that differs; the pieces
    are what both make of the text from there on, at most SHOWN of them.
    """

    place: int
    text: str
    llama_cpp: tuple[int, ...]
    transformers: tuple[int, ...]
    first: int
    llama_cpp_pieces: tuple[str, ...]
    transformers_pieces: tuple[str, ...]
    cause: str


SHOWN = 6


@dataclass(frozen=True)
class Comparison:
    """The differences that n texts show, in the order of the texts."""

    n: int
    parse_special: bool
    differences: tuple[Difference, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many differences each cause has, the most frequent first."""
        return dict(Counter(difference.cause for difference in self.differences).most_common())

    @property
    def unexplained(self) -> tuple[Difference, ...]:
        """Those for which no cause was proven."""
        return tuple(each for each in self.differences if each.cause == UNEXPLAINED)

    @property
    def summary(self) -> str:
        """The counts as one sentence."""
        how = "with" if self.parse_special else "without"
        said = f"Of {self.n:,} texts, read {how} special tokens, {self.n - len(self.differences):,}"
        causes = ", ".join(f"{count:,} by {cause}" for cause, count in self.counts.items())
        return f"{said} give the same tokens" + (
            f"; the others differ: {causes}." if causes else "."
        )


def compare_tokenizers(
    ours: LlamaTokenizer,
    theirs: TransformersTokenizer,
    texts: Iterable[str],
    parse_special: bool = True,
) -> Comparison:
    """Make tokens of each text in llama.cpp and in transformers, and explain what differs.

    Raise SettingError for a text that is not Unicode.

    >>> found = compare_tokenizers(ours, theirs, ["plain", "e\\u0301"])  # doctest: +SKIP
    >>> found.counts, found.differences[0].llama_cpp_pieces  # doctest: +SKIP
    ({'normalisation': 1}, ('e', '́'))
    """
    texts = list(texts)
    for place, text in enumerate(texts):
        if not text.isascii() and any("\ud800" <= letter < "\ue000" for letter in text):
            raise SettingError(f"text {place} holds half a character (a lone surrogate); remove it")
    llama_cpp = ours.encode(texts, parse_special)
    transformers = theirs.encode(texts, parse_special)
    places = [i for i in range(len(texts)) if llama_cpp[i] != transformers[i]]
    wanted = [llama_cpp[i] for i in places]
    causes = _explain(ours, theirs, [texts[i] for i in places], wanted, parse_special)
    found = []
    for i, cause in zip(places, causes, strict=True):
        a, b = llama_cpp[i], transformers[i]
        parted = (k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
        first = next(parted, min(len(a), len(b)))
        shown = slice(first, first + SHOWN)
        pieces = tuple(ours.pieces(a[shown])), tuple(theirs.pieces(b[shown]))
        found.append(Difference(i, texts[i], tuple(a), tuple(b), first, *pieces, cause))
    return Comparison(len(texts), parse_special, tuple(found))


Change = Callable[[dict[str, Any]], dict[str, Any]]


def _explain(
    ours: LlamaTokenizer,
    theirs: TransformersTokenizer,
    texts: Sequence[str],
    wanted: Sequence[list[int]],
    parse_special: bool,
) -> list[str]:
    """Return the cause of each difference: the smallest set of changes that makes the texts'
    tokens those that are `wanted`."""
    causes = [UNEXPLAINED] * len(texts)
    backend = getattr(theirs.tokenizer, "backend_tokenizer", None)
    if not texts or type(getattr(backend, "model", None)).__name__ != "BPE":
        return causes
    plain = _describe_parts(backend)
    changes = _list_changes(plain, ours, texts)
    left = list(range(len(texts)))
    for size in range(1, len(changes) + 1):
        for names in combinations(changes, size):
            changed = plain
            for name in names:
                changed = changes[name](changed)
            made = _encode(changed, [texts[i] for i in left], parse_special)
            for i, ids in zip(left, made, strict=True):
                if ids == wanted[i]:
                    causes[i] = " + ".join(names)
            left = [i for i in left if causes[i] == UNEXPLAINED]
            if not left:
                return causes
    return causes


_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def _describe_parts(backend: Any) -> dict[str, Any]:
    """Return a tokenizer.json's values for all but the model, which takes a second to write and
    another to read: it stays an object that every changed copy shares."""
    from tokenizers import Tokenizer, models

    small = Tokenizer(models.BPE())
    for part in ("normalizer", "pre_tokenizer"):
        if getattr(backend, part) is not None:
            setattr(small, part, getattr(backend, part))
    added = [
        {"id": token, "content": each.content, **{flag: getattr(each, flag) for flag in _FLAGS}}
        for token, each in backend.get_added_tokens_decoder().items()
    ]
    return {**json.loads(small.to_str()), "added_tokens": added, "model": backend.model}


def _list_changes(
    plain: dict[str, Any], ours: LlamaTokenizer, texts: Sequence[str]
) -> dict[str, Change]:
    """Return what can be made like llama.cpp: changes of a tokenizer's parts."""
    special = ours.special_tokens
    added = [
        {"id": token, "content": name, **dict.fromkeys(_FLAGS, False), "special": special[token]}
        for token, name in zip(special, ours.pieces(special), strict=True)
    ]
    changes: dict[str, Change] = {
        "normalisation": lambda parts: {**parts, "normalizer": None},
        "added tokens": lambda parts: {**parts, "added_tokens": added},
    }
    if ours.info.tokenizer.pre == "qwen2":
        # How llama.cpp cuts a text into words (src/llama-vocab.cpp).
        pattern = {"Regex": QWQ_PATTERN}
        split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
        words = {"type": "Sequence", "pretokenizers": [split, _BYTES]}
        changes["pre-tokenizer"] = lambda parts: {**parts, "pre_tokenizer": words}
        like_ours = plain
        for change in changes.values():
            like_ours = change(like_ours)
        newer = _find_newer_letters(like_ours, ours, texts)
        if newer:
            changes["Unicode version"] = lambda parts: _without_letters(parts, newer)
    return {name: change for name, change in changes.items() if change(plain) != plain}


def _find_newer_letters(
    like_ours: dict[str, Any], ours: LlamaTokenizer, texts: Sequence[str]
) -> str:
    """Return the characters of the texts after which one side cuts 're off and the other the
    apostrophe, so that they are letters or digits to one of them only."""
    letters = sorted({letter for text in texts for letter in text if not letter.isascii()})
    probes = [f"{letter}'re" for letter in letters]
    pairs = zip(ours.encode(probes), _encode(like_ours, probes, True), strict=True)
    return "".join(letter for letter, (a, b) in zip(letters, pairs, strict=True) if a != b)


def _without_letters(parts: dict[str, Any], letters: str) -> dict[str, Any]:
    """Return a tokenizer to whose regular expressions those are neither letters nor digits."""
    text = json.dumps(parts["pre_tokenizer"])
    escaped = "".join(f"\\x{{{ord(letter):X}}}" for letter in letters)
    for name in ("L", "N"):
        text = text.replace(rf"\\p{{{name}}}", json.dumps(rf"[\p{{{name}}}&&[^{escaped}]]")[1:-1])
    return {**parts, "pre_tokenizer": json.loads(text)}


def _encode(parts: dict[str, Any], texts: Sequence[str], parse_special: bool) -> list[list[int]]:
    from tokenizers import Tokenizer

    # Its own model knows no more than the added tokens, which take their ids from it.
    vocab = {token["content"]: token["id"] for token in parts["added_tokens"]}
    spec = {**parts, "model": {"type": "BPE", "vocab": vocab, "merges": []}}
    tokenizer = Tokenizer.from_str(json.dumps(spec))
    tokenizer.model = parts["model"]
    tokenizer.encode_special_tokens = not parse_special
    made = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    return [encoding.ids for encoding in made]


# Texts that try a tokenizer

_SPACES = (
    " \t\n\r\v\f\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2003\u2009\u200b\u2028\u2029\u202f\u3000\ufeff"
)
_APOSTROPHES = "'’`ʼ＇"
_ENDINGS = ("s t re ve m ll d S T RE Ve M lL D ſ K x").split()
# The first and the last letter of scripts: Latin, Greek, Cyrillic, Hebrew, Arabic, Devanagari,
# Thai, Hangul, kana, Han.
_SCRIPTS = ("az", "AZ", "αω", "ая", "את", "ءي", "अह", "กฮ", "가힣", "ぁん", "一龥")
_MARKS = "\u0300\u0301\u0338\u0308\u0323\u0327\u0345\u0653\u093c\u0e31\u20dd\ufe0f"
_DIGITS = "0123456789٣५๓½²Ⅷ①一"
_SYMBOLS = '!#$%&()*+,-./:;<=>?@[]^_{|}~«»…—→€©™\\"'
_JOINED = ("👩‍💻", "🏳️‍🌈", "👍🏽", "🇨🇭🇯🇵", "❤️", "1️⃣", "👨‍👩‍👧‍👦")
_JAMO = "\u1100\u1161\u11a8\u1112\u1175\u11c2"
_SINGLES = "\u212b\u2126\u0340\u0958\uf900\ufb1d\u1e9b\u0958\U0001d15e"  # NFC writes them otherwise
_SPECIALS = (
    "<|endoftext|> <|im_start|> <|im_end|> <|vision_pad|> <|fim_prefix|> <|file_sep|> <think> "
    "</think> <tool_call> </tool_response>"
).split()


@dataclass(frozen=True)
class Text:
    """A text of the corpus; cause is why QwQ-32B's two tokenizers differ there, or None."""

    name: str
    text: str
    cause: str | None


def read_corpus() -> list[Text]:
    """Return the texts of data/texts/tokenizer.json.

    >>> [text.name for text in read_corpus()][:2]
    ['empty', 'plain']
    """
    path = paths.data_dir() / "texts" / "tokenizer.json"
    return [Text(**values) for values in json.loads(path.read_text(encoding="utf-8"))]


def list_pieces(tokenizer: LlamaTokenizer) -> list[str]:
    """Return the tokens of a vocabulary that are whole characters, for `make_texts`."""
    pieces = tokenizer.pieces(range(tokenizer.n_tokens))
    return [piece for piece in pieces if piece and "\ufffd" not in piece]


def make_texts(n: int, seed: int = 3407, pieces: Sequence[str] = ()) -> list[str]:
    """Return n strings of 1 to 12 fragments each; `pieces` are tokens of the vocabulary under test.

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
        ends = rng.choice(_SCRIPTS)
        letters = (chr(rng.randint(ord(ends[0]), ord(ends[1]))) for _ in range(rng.randint(1, 6)))
        return "".join(letters)

    def anything() -> str:
        code = rng.choice((rng.randrange(0x500), rng.randrange(0x10000), rng.randrange(0x110000)))
        return chr(code) if not 0xD800 <= code < 0xE000 else "\ufffd"

    def composed() -> str:
        return word() + run(_MARKS, 2)

    def special() -> str:
        token = rng.choice(_SPECIALS)
        cut = rng.randint(1, len(token)) if rng.random() < 0.3 else len(token)
        return token[:cut]

    makers: list[Callable[[], str]] = [
        word,
        word,
        composed,
        anything,
        special,
        lambda: run(_SPACES),
        lambda: " " * rng.randint(1, 9),
        lambda: rng.choice(("\n", "\r\n", "\n\n", " \n", "\t")),
        lambda: rng.choice(_APOSTROPHES) + rng.choice(_ENDINGS),
        lambda: run(_DIGITS),
        lambda: run(_SYMBOLS),
        lambda: rng.choice(_JOINED),
        lambda: run(_JAMO, 3),
        lambda: rng.choice(_SINGLES),
    ]
    if pieces:
        makers += [lambda: rng.choice(pieces)] * 4
    return makers
