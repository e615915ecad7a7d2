"""The values of a GGUF's keys: numbers and short strings whole, all else in short."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from .gguf_cursor import I32, U64, Cursor, show

MAX_LISTED_STRINGS = 1 << 23
KEPT_STRING = 1 << 20
KEPT_TEXT = 64 << 20
KEPT_VALUES = 8

SCALARS: dict[int, tuple[str, struct.Struct]] = {
    0: ("uint8", struct.Struct("<B")),
    1: ("int8", struct.Struct("<b")),
    2: ("uint16", struct.Struct("<H")),
    3: ("int16", struct.Struct("<h")),
    4: ("uint32", struct.Struct("<I")),
    5: ("int32", struct.Struct("<i")),
    6: ("float32", struct.Struct("<f")),
    7: ("bool", struct.Struct("<B")),
    10: ("uint64", struct.Struct("<Q")),
    11: ("int64", struct.Struct("<q")),
    12: ("float64", struct.Struct("<d")),
}
STRING, ARRAY = 8, 9


@dataclass(frozen=True)
class Summary:
    """A value too long to keep: an array, or a string of more than a million bytes.

    type is the elements' type, length their number (bytes for a string), head the first few.
    """

    type: str
    length: int
    head: tuple[Any, ...]


def read_value(cursor: Cursor, key: str, kind: int) -> Any:
    """The value of a key, of a type that is no array; of a string too long to keep a `Summary`."""
    if kind == STRING:
        n = cursor.length()
        if n <= KEPT_STRING and cursor.kept + n <= KEPT_TEXT:
            cursor.kept += n
            return cursor.take(n).decode("utf-8", errors="replace")
        head = cursor.take(min(n, 256)).decode("utf-8", errors="replace")
        cursor.skip(n - min(n, 256))
        return Summary("string", n, (head,))
    if kind not in SCALARS:
        cursor.fail(f"gives the key {show(key)} the type {kind}, which GGUF does not have")
    name, scalar = SCALARS[kind]
    value = scalar.unpack(cursor.take(scalar.size))[0]
    return bool(value) if name == "bool" else value


def read_array(cursor: Cursor, key: str, budget: int) -> tuple[Summary, int]:
    """An array in short, and how many strings it listed; it may list `budget` of them."""
    kind, n = cursor.number(I32), cursor.number(U64)
    if kind == ARRAY:
        cursor.fail(f"nests an array in the array {show(key)}, which llama.cpp does not read")
    if kind != STRING and kind not in SCALARS:
        cursor.fail(f"gives the array {show(key)} the type {kind}, which GGUF does not have")
    least = 8 if kind == STRING else SCALARS[kind][1].size
    if n * least > cursor.left:
        cursor.fail(
            f"says that the array {show(key)} has {n} elements at byte {cursor.position} but the "
            f"file has {cursor.size} bytes"
        )
    kept = min(n, KEPT_VALUES)
    if kind != STRING:
        head = tuple(read_value(cursor, key, kind) for _ in range(kept))
        cursor.skip((n - kept) * least)
        return Summary(SCALARS[kind][0], n, head), 0
    if n > budget:
        cursor.fail(f"lists more than {MAX_LISTED_STRINGS} strings in its arrays")
    cursor.where = f"an element of {show(key)}"
    strings: list[str] = []
    for _ in range(kept):
        length = cursor.length()
        strings.append(cursor.take(min(length, 256)).decode("utf-8", errors="replace"))
        cursor.skip(length - min(length, 256))
    cursor.skip_strings(n - kept)
    return Summary("string", n, tuple(strings)), n
