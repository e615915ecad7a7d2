"""Read the header of a GGUF file in Python, before llama.cpp sees the file.

The layout (ggml/docs/gguf.md): magic, version and two counts; keys with their values; then name,
shape, type and place of each tensor. llama.cpp's own reader has had holes (CVE-2025-53630,
CVE-2026-27940), and a crash in C ends the notebook. This one takes the headers that llama.cpp's
`gguf_init_from_file` takes, but for two kinds: a file that doesn't hold its tensors whole, which
llama.cpp refuses when it loads the model; and a header beyond MAX_HEADER or MAX_NAMES. A test holds
the two readers against each other. What the values mean, llama.cpp judges in a process of its own
(see `trial`).
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from ..errors import ModelFileError
from ..llamacpp import TENSOR_TYPES

# A damaged length or count can be anything. A vocabulary of 260,000 tokens takes some 20 MB, and
# the largest models have some 50,000 tensors.
MAX_HEADER = 64 << 20  # bytes
MAX_NAMES = 1 << 18  # keys, and as many tensors
MAX_TENSOR_NAME = 63  # bytes: ggml's own limit, as the next two are
MAX_DIMENSIONS = 4
MAX_ELEMENTS = (1 << 63) - 1
HEAD = 8  # elements of an array that are kept
ALIGNMENT = "general.alignment"

# The struct format of each number, by its type in the file: 0 to 7 in this order, then 10 to 12.
NUMBERS = {**dict(enumerate("BbHhIif?")), 10: "Q", 11: "q", 12: "d"}
UINT32, STRING, ARRAY = 4, 8, 9


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
    magic = reader.take(min(4, reader.size))
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
    n_tensors, n_keys = reader.count("tensors"), reader.count("keys")
    metadata = _read_keys(reader, n_keys)
    return version, metadata, _read_tensors(reader, n_tensors, metadata.get(ALIGNMENT, 32))


def _read_keys(reader: _Reader, n_keys: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    taken: set[bytes] = set()
    for number in range(n_keys):
        name = reader.name(f"key {number}", taken)
        kind = reader.number("i")
        value = reader.value(kind)
        if name in metadata:  # the same up to a zero byte: llama.cpp finds the first
            continue
        metadata[name] = value
        if name == ALIGNMENT and (kind != UINT32 or value.bit_count() != 1):
            shown = printable(str(value))
            reader.fail(f"has the alignment {shown}, which is not a power of two in 32 bits")
    if b"" in taken:
        reader.fail("has a key without a name")
    return metadata


def _read_tensors(reader: _Reader, n_tensors: int, alignment: int) -> tuple[Tensor, ...]:
    stated = []
    taken: set[bytes] = set()
    end = 0  # of the tensors so far, from where their data starts
    for number in range(n_tensors):
        name = reader.name(f"tensor {number}", taken, MAX_TENSOR_NAME)
        n_dims = reader.number("I")
        if n_dims > MAX_DIMENSIONS:
            reader.fail(f"gives {reader.where} {n_dims} dimensions, but ggml has at most 4")
        shape = tuple(reader.number("q") for _ in range(n_dims))
        kind, offset = reader.number("i"), reader.number("Q")
        stored = TENSOR_TYPES.get(kind)
        if stored is None:
            reader.fail(
                f"stores {reader.where} in type {kind}, which the lab does not know",
                "take a file in another quant, or update qwqlab",
            )
        if not _is_countable(shape):
            reader.fail(f"gives {reader.where} the shape {shape}, which cannot be")
        if (shape or (1,))[0] % stored.block:
            reader.fail(
                f"gives {reader.where} the shape {shape}, which {stored.name} cannot store in "
                f"blocks of {stored.block}"
            )
        n_bytes = math.prod(shape) // stored.block * stored.n_bytes
        if n_bytes > reader.size:  # before llama.cpp's sums, which overflow here
            reader.fail(
                f"is cut short: {reader.where} takes {n_bytes} bytes but the file has "
                f"{reader.size}",
                "fetch it again",
            )
        if offset != end:
            reader.fail(f"puts {reader.where} at byte {offset} of its data, not {end}")
        stated.append((name, shape, stored.name, offset, n_bytes))
        end += n_bytes + -n_bytes % alignment
    start = reader.position + -reader.position % alignment
    tensors = tuple(
        Tensor(name, shape, kind, start + offset, n_bytes)
        for name, shape, kind, offset, n_bytes in stated
    )
    for tensor in tensors:
        if (stop := tensor.offset + tensor.n_bytes) > reader.size:
            reader.fail(
                f"is cut short: tensor {printable(tensor.name)} ends at byte {stop} but the file "
                f"has {reader.size} bytes",
                "fetch it again",
            )
    return tensors


def _is_countable(shape: tuple[int, ...]) -> bool:
    """Return whether ggml can count the elements: where it can't, it ends the process.

    Of a dimension of zero it takes note only if that is the first.
    """
    n, *others = shape or (1,)
    for size in others:
        if size > 1 and (n + 1) * size > MAX_ELEMENTS:
            return False
        n *= max(size, 1)
    return min(shape, default=0) >= 0


class _Reader:
    """Takes one thing after another out of a file, and names the place where it can't."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path
        self.size = os.fstat(file.fileno()).st_size
        self.position = 0
        self.where = "its first bytes"

    def fail(self, problem: str, remedy: str = "fetch it again or take another file") -> NoReturn:
        """Raise ModelFileError about the file."""
        raise ModelFileError(f"{self._path} {problem}; {remedy}.")

    def _move(self, n: int) -> None:
        """Count n bytes as read."""
        self.position += n
        if self.position > MAX_HEADER:
            self.fail(
                f"has a header longer than the {MAX_HEADER >> 20} MiB that the lab reads: "
                f"{self.where} takes {n} bytes"
            )

    def take(self, n: int) -> bytes:
        """Return the next n bytes."""
        self._move(n)
        data = self._file.read(n)
        if len(data) < n:
            self.fail(f"is cut short: it ends within {self.where}", "fetch it again")
        return data

    def number(self, form: str) -> Any:
        """Return the next number, in a format of struct."""
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))[0]

    def count(self, what: str) -> int:
        """Return the number of keys or tensors that comes next."""
        n: int = self.number("Q")
        if n > MAX_NAMES:
            self.fail(f"counts {n} {what}, and the lab reads at most {MAX_NAMES}")
        return n

    def string(self) -> bytes:
        return self.take(self.number("Q"))

    def name(self, what: str, taken: set[bytes], limit: int = MAX_HEADER) -> str:
        """Return the name that comes next, which must not be taken yet, and take it."""
        self.where = f"the name of {what}"
        raw = self.string()
        name = _as_c(raw).decode("utf-8", "surrogateescape")
        self.where = f"{what.split()[0]} {printable(name)}"
        if raw in taken:
            self.fail(f"has {self.where} twice")
        if len(raw) > limit:
            self.fail(f"gives {self.where} a name of {len(raw)} bytes, but ggml's have {limit}")
        taken.add(raw)
        return name

    def value(self, kind: int) -> Any:
        """Return a value of that type, an array as its `Summary`."""
        if kind == STRING:
            return _as_c(self.string()).decode("utf-8", "replace")
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
            head = tuple(self.value(STRING) for _ in range(min(n, HEAD)))
            for _ in range(n - len(head)):
                self.string()
            return Summary(n, head, start)
        form = self._find_form(kind)
        head = tuple(self.number(form) for _ in range(min(n, HEAD)))
        rest = (n - len(head)) * struct.calcsize(f"<{form}")
        self._move(rest)
        if self.position > self.size:
            self.fail(f"gives {self.where} {n} elements, more than the file holds")
        self._file.seek(rest, os.SEEK_CUR)
        return Summary(n, head, start)


def _as_c(raw: bytes) -> bytes:
    """Return a string as llama.cpp reads it out of the file: up to the first zero byte."""
    return raw.partition(b"\0")[0]
