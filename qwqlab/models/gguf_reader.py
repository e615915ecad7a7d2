"""Read the header of a GGUF file that nobody vouches for, and check all that it states.

The rules are those of llama.cpp's ggml/src/gguf.cpp, which has had holes here (CVE-2025-53630,
CVE-2026-27940), with tighter limits on counts so that no header takes minutes to read in Python.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from ..ggml_types import REMOVED_TYPES, TENSOR_TYPES
from .gguf_cursor import I32, I64, U32, U64, Cursor, show
from .gguf_values import ARRAY, MAX_LISTED_STRINGS, read_array, read_value

MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 17
MAX_NAME = 64
MAX_DIMS = 4


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


@dataclass
class Header:
    """What was read: filled by `read_header`."""

    version: int = 0
    n_tensors: int = 0
    metadata: dict[str, Any] = field(default_factory=dict)
    tensors: list[Tensor] = field(default_factory=list)
    n_bytes: int = 0


def read_header(file: BinaryIO, path: Path) -> Header:
    """Everything before the tensor data, checked. ModelFileError names what is wrong."""
    cursor = Cursor(file, path, os.fstat(file.fileno()).st_size)
    header = Header()
    n_keys = _read_start(cursor, header)
    _read_metadata(cursor, header, n_keys)
    _read_tensors(cursor, header)
    return header


def _read_start(cursor: Cursor, header: Header) -> int:
    if cursor.size == 0:
        cursor.fail("is empty", "fetch it again")
    magic = cursor.take(min(4, cursor.size))
    if magic != b"GGUF":
        cursor.fail(
            f"is not a GGUF file: it starts with {show(magic.decode('latin-1'))!r}",
            "give the path of a .gguf file",
        )
    header.version = cursor.number(U32)
    if header.version & 0xFFFF == 0 and header.version:
        cursor.fail(
            "is a big-endian GGUF file, which llama.cpp does not read on this machine",
            "take the little-endian one",
        )
    if header.version not in (2, 3):
        cursor.fail(
            f"is of GGUF version {header.version}, but llama.cpp reads versions 2 and 3",
            "convert it anew or take another file",
        )
    header.n_tensors = cursor.number(U64)
    n_keys = cursor.number(U64)
    # A key takes at least a length, a letter, a type and a byte.
    # A tensor takes at least the length of its name, a count of dimensions, a type and an offset.
    for name, count, least, most in (
        ("keys", n_keys, 14, MAX_KEYS),
        ("tensors", header.n_tensors, 24, MAX_TENSORS),
    ):
        if count * least > cursor.left:
            cursor.fail(f"says that it has {count} {name}, which do not fit in {cursor.size} bytes")
        if count > most:
            cursor.fail(f"says that it has {count} {name}, more than the {most} allowed")
    return n_keys


def _read_metadata(cursor: Cursor, header: Header, n_keys: int) -> None:
    budget = MAX_LISTED_STRINGS
    for index in range(n_keys):
        cursor.where = f"the name of key {index}"
        key = cursor.string(limit=(1 << 16) - 1)
        if not key:
            cursor.fail(f"has an empty name for key {index}")
        if key in header.metadata:
            cursor.fail(f"has the key {show(key)} twice")
        cursor.where = f"key {show(key)}"
        kind = cursor.number(I32)
        if key == "general.alignment" and kind != 4:
            cursor.fail("stores general.alignment as something else than a uint32")
        if kind == ARRAY:
            value, n_strings = read_array(cursor, key, budget)
            budget -= n_strings
        else:
            value = read_value(cursor, key, kind)
        header.metadata[key] = value


def _read_tensors(cursor: Cursor, header: Header) -> None:
    alignment = header.metadata.get("general.alignment", 32)
    if alignment == 0 or alignment & (alignment - 1):
        cursor.fail(f"has the alignment {alignment}, which is not a power of two")
    infos: list[tuple[str, tuple[int, ...], int, int]] = []
    names: set[str] = set()
    for index in range(header.n_tensors):
        cursor.where = f"the name of tensor {index}"
        name = cursor.string(limit=MAX_NAME - 1)
        if name in names:
            cursor.fail(f"has the tensor {show(name)} twice")
        names.add(name)
        cursor.where = f"tensor {show(name)}"
        infos.append((name, _read_shape(cursor, name), cursor.number(I32), cursor.number(U64)))
    start = cursor.position
    if infos:
        start += -start % alignment
    header.n_bytes = start
    expected = 0
    for name, shape, kind, offset in infos:
        n_bytes = _tensor_bytes(cursor, name, shape, kind)
        if offset != expected:
            cursor.fail(
                f"puts tensor {show(name)} at offset {offset}, where {expected} follows from the "
                f"tensors before it and the alignment {alignment}"
            )
        end = start + offset + n_bytes
        if end > cursor.size:
            cursor.fail(
                f"is cut short: {show(name)} ends at byte {end} "
                f"but the file has {cursor.size} bytes",
                "fetch it again",
            )
        header.tensors.append(Tensor(name, shape, TENSOR_TYPES[kind].name, start + offset, n_bytes))
        expected += n_bytes + -n_bytes % alignment


def _read_shape(cursor: Cursor, name: str) -> tuple[int, ...]:
    n_dims = cursor.number(U32)
    if n_dims > MAX_DIMS:
        cursor.fail(
            f"gives tensor {show(name)} {n_dims} dimensions, but ggml has at most {MAX_DIMS}"
        )
    shape = tuple(cursor.number(I64) for _ in range(n_dims))
    if any(size < 1 for size in shape):
        cursor.fail(f"gives tensor {show(name)} the shape {shape}, which holds nothing")
    if math.prod(shape) > (1 << 63) - 1:
        cursor.fail(f"gives tensor {show(name)} the shape {shape}, which is too large to count")
    return shape


def _tensor_bytes(cursor: Cursor, name: str, shape: tuple[int, ...], kind: int) -> int:
    if kind in REMOVED_TYPES:
        cursor.fail(
            f"stores tensor {show(name)} as {REMOVED_TYPES[kind]}, which llama.cpp no longer reads",
            "take a file in another quant",
        )
    if kind not in TENSOR_TYPES:
        cursor.fail(
            f"stores tensor {show(name)} in type {kind}, which the lab does not know",
            "take a file in another quant, or update qwqlab",
        )
    stored = TENSOR_TYPES[kind]
    row = shape[0] if shape else 1
    if row % stored.block:
        cursor.fail(
            f"gives tensor {show(name)} rows of {row} elements, "
            f"which {stored.name} cannot store in blocks of {stored.block}"
        )
    return math.prod(shape) // stored.block * stored.n_bytes
