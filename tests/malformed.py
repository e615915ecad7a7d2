"""Write GGUF files by hand, sound and broken, without any library that would refuse to."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Raw:
    """Bytes that stand for themselves: a type number and whatever follows it."""

    kind: int
    body: bytes


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return u64(len(data)) + data


Tensor = tuple[str | bytes, tuple[int, ...], int, int | None, int]


@dataclass
class Gguf:
    """A GGUF in pieces: `pieces()` gives them in order, so that a test can cut between any two.

    tensors holds (name, shape, type number, offset or None for the right one, bytes of data).
    """

    version: int = 3
    keys: list[tuple[str | bytes, Any]] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    n_keys: int | None = None
    n_tensors: int | None = None
    alignment: int = 32

    def pieces(self) -> Iterator[bytes]:
        yield from self.head()
        for _, _, _, _, n_bytes in self.tensors:
            yield bytes(n_bytes)
            yield bytes(-n_bytes % self.alignment)

    def head(self) -> Iterator[bytes]:
        """All that stands before the data of the tensors."""
        yield b"GGUF"
        yield u32(self.version)
        yield u64(len(self.tensors) if self.n_tensors is None else self.n_tensors)
        yield u64(len(self.keys) if self.n_keys is None else self.n_keys)
        size = 24
        for key, value in self.keys:
            for piece in (string(key), *_value(value)):
                size += len(piece)
                yield piece
        running = 0
        for name, shape, kind, offset, n_bytes in self.tensors:
            dims = b"".join(u64(n % (1 << 64)) for n in shape)
            parts = (string(name), u32(len(shape)), dims, u32(kind))
            for piece in (*parts, u64(running if offset is None else offset)):
                size += len(piece)
                yield piece
            running += n_bytes + -n_bytes % self.alignment
        if self.tensors:
            yield bytes(-size % self.alignment)

    def build(self) -> bytes:
        return b"".join(self.pieces())


def sound(architecture: str = "llama", **extra: Any) -> Gguf:
    """A tiny sound GGUF: every kind of value, three tensors, no model that could run."""
    return Gguf(
        keys=[
            ("general.architecture", architecture),
            ("general.name", "tiny"),
            ("general.file_type", 3),
            (f"{architecture}.context_length", 64),
            (f"{architecture}.attention.layer_norm_rms_epsilon", 1e-5),
            (f"{architecture}.rope.freq_base", 1e6),
            ("tokenizer.ggml.model", "gpt2"),
            ("tokenizer.ggml.tokens", ["a", "b", "<|im_end|>"]),
            ("tokenizer.ggml.token_type", [1, 1, 3]),
            ("tokenizer.ggml.add_bos_token", False),
            ("tokenizer.chat_template", "{{ messages }}"),
            *extra.items(),
        ],
        tensors=[
            ("token_embd.weight", (32, 3), 3, None, 60),
            ("blk.0.attn_norm.weight", (32,), 0, None, 128),
            ("output.weight", (256, 2), 12, None, 288),
        ],
    )


def with_key(key: str | bytes, value: Any) -> Gguf:
    """The sound file with one more key."""
    made = sound()
    made.keys.append((key, value))
    return made


def with_tensor(
    shape: tuple[int, ...],
    kind: int = 0,
    offset: int | None = None,
    n_bytes: int = 0,
    name: str | bytes = "extra.weight",
) -> Gguf:
    """The sound file with one more tensor."""
    made = sound()
    made.tensors.append((name, shape, kind, offset, n_bytes))
    return made


def _value(value: Any) -> tuple[bytes, ...]:
    if isinstance(value, Raw):
        return u32(value.kind), value.body
    if isinstance(value, bool):
        return u32(7), bytes([value])
    if isinstance(value, int):
        return u32(4), u32(value)
    if isinstance(value, float):
        return u32(6), struct.pack("<f", value)
    if isinstance(value, str):
        return u32(8), string(value)
    if value and isinstance(value[0], str):
        return u32(9), u32(8), u64(len(value)), *(string(text) for text in value)
    return u32(9), u32(5), u64(len(value)), struct.pack(f"<{len(value)}i", *value)
