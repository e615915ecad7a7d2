"""Change GGUF files at random, field by field: what damage, mistakes and malice do to them."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from malformed import Gguf, Raw, sound, string, u32, u64

from qwqlab.llamacpp import TENSOR_TYPES

SIZES = (0, 1, 2, 3, 4, 8, 31, 32, 33, 64, 256)
WILD = (1 << 20, 1 << 30, (1 << 30) + 1, (1 << 31) - 1, 1 << 31, 1 << 32, 1 << 40, 1 << 61, 1 << 62,
        (1 << 63) - 1, 1 << 63, (1 << 64) - 1)  # fmt: skip
FORMS = {**dict(enumerate("BbHhIif?")), 10: "Q", 11: "q", 12: "d"}
KINDS = (*range(13), 13, 77, 0xFFFFFFFF)
NAMES = (b"", b"\0", b"k", b"k\0a", b"k\0b", b"\xff", b"\xfe\xff", "ключ".encode(), b"n" * 62,
         b"n" * 63, b"n" * 64, b"general.alignment", b"general.alignment\0x",
         b"general.architecture", b"token_embd.weight", b"token_embd.weight\0")  # fmt: skip
VOCABULARIES = (
    "none",
    "no_vocab",
    "llama",
    "gpt2",
    "bert",
    "t5",
    "rwkv",
    "plamo2",
    "gpt2\0x",
    "odd",
)

TEXTS = ("", "a\0b", "llama", "qwen2", "gemma3", "mamba", "bert", "t5", "rwkv6", "phi3",
         "deepseek2", "default", "llama-bpe", "gpt-2", "qwen35", "tekken", "{{ messages",
         "x" * 70_000)  # fmt: skip


def number(rng: random.Random) -> int:
    return rng.choice(SIZES if rng.random() < 0.6 else WILD)


def pack(kind: int, value: int) -> bytes:
    """A number in the width of its type; what is no number's type gets four bytes."""
    form = FORMS.get(kind, "I")
    if form in "fd":
        return struct.pack(f"<{form}", value)
    return (value % (1 << 64)).to_bytes(8, "little")[: struct.calcsize(form)]


def any_value(rng: random.Random) -> Raw:
    """A value of any type, mostly one that fits it."""
    kind = rng.choice(KINDS)
    if kind == 8:
        return Raw(8, string(rng.choice(NAMES)))
    if kind != 9:
        return Raw(kind, pack(kind, number(rng)))
    inner, n = rng.choice(KINDS), rng.choice((0, 1, 3, 9))
    one = string(rng.choice(NAMES)) if inner == 8 else pack(inner, 1)
    stated = n if rng.random() < 0.7 else number(rng)
    return Raw(9, u32(inner) + u64(stated) + one * n)


def change_counts(rng: random.Random, made: Gguf) -> None:
    counts = {"n_keys": len(made.keys), "n_tensors": len(made.tensors)}
    name = rng.choice(list(counts))
    setattr(made, name, rng.choice((max(counts[name] - 1, 0), counts[name] + 1, number(rng))))


def change_version(rng: random.Random, made: Gguf) -> None:
    made.version = rng.choice((0, 1, 2, 2, 2, 4, 0x10000, 0x3000000, 0xFFFFFFFF))


def add_key(rng: random.Random, made: Gguf) -> None:
    made.keys.insert(rng.randint(0, len(made.keys)), (rng.choice(NAMES), any_value(rng)))


def change_value(rng: random.Random, made: Gguf) -> None:
    place = rng.randrange(len(made.keys))
    made.keys[place] = (made.keys[place][0], any_value(rng))


def change_array(rng: random.Random, made: Gguf) -> None:
    """Another number or type of elements than there are, or none of a text's length."""
    for place in choose(rng, made, 9):
        key, value = made.keys[place]
        inner, n = struct.unpack_from("<IQ", value.body)
        body = value.body[12:]
        action = rng.randrange(3)
        if action == 0:
            inner = rng.choice(KINDS)
        elif action == 1:
            n = rng.choice((n + 1, max(n - 1, 0), number(rng)))
        else:
            body = u64(number(rng)) + body[8:]
        made.keys[place] = (key, Raw(9, u32(inner) + u64(n) + body))


def choose(rng: random.Random, made: Gguf, *kinds: int) -> list[int]:
    """The place of one of the keys of these types, if there are any."""
    places = [place for place, (_, value) in enumerate(made.keys) if value.kind in kinds]
    return rng.sample(places, min(1, len(places)))


def rename_key(rng: random.Random, made: Gguf) -> None:
    place = rng.randrange(len(made.keys))
    made.keys[place] = (rng.choice((*NAMES, made.keys[0][0])), made.keys[place][1])


def drop_key(rng: random.Random, made: Gguf) -> None:
    del made.keys[rng.randrange(len(made.keys))]


def change_alignment(rng: random.Random, made: Gguf) -> None:
    made.alignment = rng.choice((1, 2, 8, 64, 4096))
    kind = rng.choice((4, 4, 4, 0, 5, 7, 10))
    stated = made.alignment if rng.random() < 0.7 else number(rng) % (1 << 32)
    made.keys.append(("general.alignment", Raw(kind, pack(kind, stated))))


def change_tensor(rng: random.Random, made: Gguf) -> None:
    """Another name, shape, type or place, mostly with the bytes that it takes."""
    if not made.tensors:
        return
    place = rng.randrange(len(made.tensors))
    name, shape, kind, offset, n_bytes = made.tensors[place]
    action = rng.randrange(4)
    if action == 0:
        name = rng.choice(NAMES)
    elif action == 1:
        shape = tuple(number(rng) for _ in range(rng.choice((0, 1, 2, 3, 4, 4, 5))))
    elif action == 2:
        kind = rng.choice((*range(45), 1 << 31, 0xFFFFFFFF))
    else:
        offset = rng.choice((0, 32, 64, 65, number(rng)))
    if action in (1, 2) and rng.random() < 0.8:
        n_bytes = count_bytes(shape, kind)
    made.tensors[place] = (name, shape, kind, offset, n_bytes)


def count_bytes(shape: tuple[int, ...], kind: int) -> int:
    """The bytes of a tensor, or none if it has no type or too many."""
    stored = TENSOR_TYPES.get(kind)
    n_bytes = math.prod(shape) // stored.block * stored.n_bytes if stored else 0
    return n_bytes if n_bytes < 1 << 16 else 0


def add_tensor(rng: random.Random, made: Gguf) -> None:
    shape = tuple(rng.choice(SIZES) for _ in range(rng.randint(0, 4)))
    kind = rng.choice((0, 0, 1, 3, 12, 27))
    made.tensors.append((rng.choice(NAMES), shape, kind, None, count_bytes(shape, kind)))


def drop_tensor(rng: random.Random, made: Gguf) -> None:
    if made.tensors:
        del made.tensors[rng.randrange(len(made.tensors))]


def change_number(rng: random.Random, made: Gguf) -> None:
    """Another number of the same type."""
    for place in choose(rng, made, *FORMS):
        key, value = made.keys[place]
        made.keys[place] = (key, Raw(value.kind, pack(value.kind, number(rng))))


def change_elements(rng: random.Random, made: Gguf) -> None:
    """An array with fewer elements, one of them twice, or another one in its place."""
    for place in choose(rng, made, 9):
        key, value = made.keys[place]
        inner, n = struct.unpack_from("<IQ", value.body)
        cursor = _Cursor(value.body, 12)
        try:
            items = [cursor.element(inner) for _ in range(min(n, len(value.body)))]
        except (KeyError, struct.error):  # changed before
            return
        if not items:
            return
        at = rng.randrange(len(items))
        action = rng.randrange(4)
        if action == 0:
            del items[at:]
        elif action == 1:
            del items[at]
        elif action == 2:
            items[at] = rng.choice(items)
        else:
            odd = string(rng.choice(NAMES)) if inner == 8 else pack(inner, number(rng))
            items[at] = odd
        made.keys[place] = (key, Raw(9, u32(inner) + u64(len(items)) + b"".join(items)))


def change_text(rng: random.Random, made: Gguf) -> None:
    """Another text, such as the name of another architecture or pre-tokenizer."""
    for place in choose(rng, made, 8):
        made.keys[place] = (made.keys[place][0], Raw(8, string(rng.choice(TEXTS))))


def change_vocabulary(rng: random.Random, made: Gguf) -> None:
    """Another kind of tokenizer, over the same tokens."""
    made.keys = [pair for pair in made.keys if pair[0] != b"tokenizer.ggml.model"]
    made.keys.append((b"tokenizer.ggml.model", Raw(8, string(rng.choice(VOCABULARIES)))))


Action = Callable[[random.Random, Gguf], None]
# What changes the form of a header, and what changes only what it says.
FORM: tuple[Action, ...] = (
    change_counts, change_version, add_key, change_value, change_array, rename_key,
    change_alignment, change_tensor, change_tensor, change_tensor, add_tensor, drop_tensor,
)  # fmt: skip
MEANING: tuple[Action, ...] = (
    change_number, change_number, change_elements, change_elements, change_text, drop_key,
    change_vocabulary,
)  # fmt: skip


def mutate(rng: random.Random, made: Gguf, actions: Sequence[Action] = FORM + MEANING) -> Gguf:
    """The file with one to three of its fields changed."""
    made = replace(made, keys=list(made.keys), tensors=list(made.tensors))
    for _ in range(rng.choice((1, 1, 2, 3))):
        if made.keys:
            rng.choice(actions)(rng, made)
    return made


def damage(rng: random.Random, data: bytes, header: int) -> bytes:
    """The file, mostly with some of its first `header` bytes changed or with its end cut off."""
    changed = bytearray(data)
    at = rng.randrange(max(header, 1))
    action = rng.randrange(10)
    if action == 0 and at < len(changed):
        changed[at] ^= 1 << rng.randrange(8)
    elif action == 1:
        changed[at : at + 8] = u64(number(rng))
    elif action == 2:
        changed[at : at + 4] = u32(rng.choice(KINDS))
    elif action == 3:
        changed[at:at] = rng.randbytes(rng.randint(1, 9))
    elif action == 4:
        del changed[at : at + rng.randint(1, 40)]
    elif action == 5:
        del changed[rng.randint(0, len(changed)) :]
    return bytes(changed)


@dataclass
class _Cursor:
    data: bytes
    at: int = 0

    def take(self, n: int) -> bytes:
        self.at += n
        return self.data[self.at - n : self.at]

    def number(self, form: str) -> Any:
        return struct.unpack(f"<{form}", self.take(struct.calcsize(form)))[0]

    def string(self) -> bytes:
        return self.take(self.number("Q"))

    def element(self, kind: int) -> bytes:
        """A number or a text as it stands there."""
        start = self.at
        self.take(self.number("Q") if kind == 8 else struct.calcsize(FORMS[kind]))
        return self.data[start : self.at]


def take_apart(data: bytes) -> Gguf:
    """The pieces of a sound file's header, each value as it stands there."""
    cursor = _Cursor(data, 4)
    made = Gguf(cursor.number("I"))
    n_tensors, n_keys = cursor.number("Q"), cursor.number("Q")
    for _ in range(n_keys):
        key, kind = cursor.string(), cursor.number("I")
        start = cursor.at
        inner, n = (cursor.number("I"), cursor.number("Q")) if kind == 9 else (kind, 1)
        for _ in range(n):
            cursor.element(inner)
        made.keys.append((key, Raw(kind, data[start : cursor.at])))
    for _ in range(n_tensors):
        name = cursor.string()
        shape = tuple(cursor.number("Q") for _ in range(cursor.number("I")))
        kind, _ = cursor.number("I"), cursor.number("Q")
        stored = TENSOR_TYPES[kind]
        n_bytes = math.prod(shape) // stored.block * stored.n_bytes
        made.tensors.append((name, shape, kind, None, n_bytes))
    return made


def small_files(rng: random.Random, count: int) -> Iterator[bytes]:
    """That many changed copies of a tiny sound file."""
    whole = take_apart(sound().build())
    for _ in range(count):
        made = mutate(rng, whole)
        yield damage(rng, made.build(), sum(map(len, made.head())))
