"""Read the header of a GGUF file in Python, before llama.cpp sees the file.

The layout (ggml/docs/gguf.md): magic, version and two counts; keys with their values; then name,
shape, type and place of each tensor. llama.cpp's own reader has had holes (CVE-2025-53630,
CVE-2026-27940), and a crash in C ends the notebook. This one checks what it needs to read on and
what others compute with: lengths, types, and that the file holds every tensor whole. The rest
llama.cpp refuses itself, in a process of its own (see `trial`).
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from ..errors import ModelFileError
from ..llamacpp import TENSOR_TYPES

MAX_STRING = 16 << 20  # bytes; a chat template has thousands, and a damaged length can be anything
HEAD = 8  # elements of an array that are kept

# The struct format of each number, by its type in the file: 0 to 7 in this order, then 10 to 12.
NUMBERS = {**dict(enumerate("BbHhIif?")), 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9


@dataclass(frozen=True)
class Summary:
    """An array in short: the number of its elements, and the first few.

    start: the byte of the file at which the elements begin.
    """

    length: int
    head: tuple[Any, ...]
    start: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Tensor:
    """One tensor: its shape as ggml writes it (the contiguous dimension first), type and place.

    offset counts from the start of the file, n_bytes without the padding after it.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    n_bytes: int

    @property
    def n_elements(self) -> int:
        return math.prod(self.shape)


def printable(text: str, limit: int = 80) -> str:
    """Return text from a file for use in a message: escaped, and at most `limit` characters.

    >>> printable("red \\x1b[31m")
    'red \\\\x1b[31m'
    """
    escaped = ascii(text)[1:-1]
    return escaped if len(escaped) <= limit else f"{escaped[: limit - 3]}..."


def read_header(file: BinaryIO, path: Path) -> tuple[int, dict[str, Any], tuple[Tensor, ...]]:
    """Return version, metadata and tensors.

    Raise ModelFileError if they make no sense.
    """
    reader = _Reader(file, path)
    magic = file.read(4)
    if magic != b"GGUF":
        reader.fail(
            f"is not a GGUF file: it starts with {printable(magic.decode('latin-1'))!r}",
            "give the path of a .gguf file",
        )
    version = reader.number("I")
    if version not in (2, 3):
        reader.fail(
            f"is of GGUF version {version}, but llama.cpp reads versions 2 and 3",
            "convert it anew or take another file",
        )
    n_tensors, n_keys = reader.number("Q"), reader.number("Q")
    metadata: dict[str, Any] = {}
    for number in range(n_keys):
        name = reader.name(f"key {number}", metadata)
        metadata[name] = reader.value(reader.number("i"))
    alignment = metadata.get("general.alignment", 32)
    return version, metadata, _read_tensors(reader, n_tensors, alignment)


def _read_tensors(reader: _Reader, n_tensors: int, alignment: Any) -> tuple[Tensor, ...]:
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        reader.fail(f"has the alignment {alignment}, which is not a power of two")
    stated: dict[str, tuple[tuple[int, ...], int, int]] = {}
    for number in range(n_tensors):
        name = reader.name(f"tensor {number}", stated)
        n_dims = reader.number("I")
        if n_dims > 4:
            reader.fail(f"gives {reader.where} {n_dims} dimensions, but ggml has at most 4")
        shape = tuple(reader.number("q") for _ in range(n_dims))
        stated[name] = shape, reader.number("i"), reader.number("Q")
    start = reader.position
    if stated:
        start += -start % alignment
    tensors = []
    for name, (shape, kind, offset) in stated.items():
        label = f"tensor {printable(name)}"
        stored = TENSOR_TYPES.get(kind)
        if stored is None:
            reader.fail(
                f"stores {label} in type {kind}, which the lab does not know",
                "take a file in another quant, or update qwqlab",
            )
        if any(size < 1 for size in shape) or (shape or (1,))[0] % stored.block:
            reader.fail(
                f"gives {label} the shape {shape}, which {stored.name} cannot store in blocks of "
                f"{stored.block}"
            )
        n_bytes = math.prod(shape) // stored.block * stored.n_bytes
        if start + offset + n_bytes > reader.size:
            reader.fail(
                f"is cut short: {label} ends at byte {start + offset + n_bytes} but the file has "
                f"{reader.size} bytes",
                "fetch it again",
            )
        tensors.append(Tensor(name, shape, stored.name, start + offset, n_bytes))
    return tuple(tensors)


class _Reader:
    """Takes one thing after another out of a file, and names the place where it can't."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path
        self.size = os.fstat(file.fileno()).st_size
        self.where = "its first bytes"

    def fail(self, problem: str, remedy: str = "fetch it again or take another file") -> NoReturn:
        """Raise ModelFileError about the file."""
        raise ModelFileError(f"{self._path} {problem}; {remedy}.")

    @property
    def position(self) -> int:
        return self._file.tell()

    def take(self, n: int) -> bytes:
        """Return the next n bytes."""
        if n > MAX_STRING:
            self.fail(f"gives {self.where} a length of {n} bytes")
        data = self._file.read(n)
        if len(data) < n:
            self.fail(f"is cut short: it ends within {self.where}", "fetch it again")
        return data

    def number(self, form: str) -> Any:
        """Return the next number, in a format of struct."""
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))[0]

    def string(self) -> str:
        return self.take(self.number("Q")).decode("utf-8", errors="replace")

    def name(self, what: str, taken: Container[str]) -> str:
        """Return the name that comes next, which must not be taken yet."""
        self.where = f"the name of {what}"
        name = self.string()
        self.where = f"{what.split()[0]} {printable(name)}"
        if name in taken:
            self.fail(f"has {self.where} twice")
        return name

    def value(self, kind: int) -> Any:
        """Return a value of that type, an array as its `Summary`."""
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            return self._array(self.number("i"), self.number("Q"))
        return self.number(self._find_form(kind))

    def _find_form(self, kind: int) -> str:
        if kind not in NUMBERS:
            self.fail(f"gives {self.where} the type {kind}, which llama.cpp does not read")
        return NUMBERS[kind]

    def _array(self, kind: int, n: int) -> Summary:
        start = self.position
        if kind == STRING:
            head = tuple(self.string() for _ in range(min(n, HEAD)))
            for _ in range(n - len(head)):
                self.take(self.number("Q"))
            return Summary(n, head, start)
        form = self._find_form(kind)
        head = tuple(self.number(form) for _ in range(min(n, HEAD)))
        rest = (n - len(head)) * struct.calcsize(f"<{form}")
        if rest > self.size - self.position:
            self.fail(f"gives {self.where} {n} elements, more than the file holds")
        self._file.seek(rest, os.SEEK_CUR)
        return Summary(n, head, start)
