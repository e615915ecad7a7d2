"""What a GGUF file says of itself, checked before llama.cpp sees it."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import hashes
from ..errors import ModelFileError
from ..ggml_types import FILE_TYPES
from .gguf_reader import Tensor, read_header
from .gguf_values import Summary


@dataclass(frozen=True)
class Tokenizer:
    """The vocabulary in short. model is llama.cpp's name of the algorithm; None is unsaid."""

    model: str
    pre: str
    n_tokens: int
    bos: int | None
    eos: int | None
    pad: int | None
    add_bos: bool | None


@dataclass(frozen=True)
class GGUFInfo:
    """The header of a GGUF file.

    metadata:  every key; arrays, and strings of more than a million bytes, as a Summary.
    tensors:   in the file's order. n_bytes of the file, data_offset where its tensor data starts.
    """

    path: Path
    n_bytes: int
    version: int
    data_offset: int
    metadata: dict[str, Any]
    tensors: tuple[Tensor, ...]

    @property
    def n_tensors(self) -> int:
        return len(self.tensors)

    @property
    def n_parameters(self) -> int:
        """Numbers in all tensors of this file."""
        return sum(tensor.n_elements for tensor in self.tensors)

    @property
    def bytes_by_type(self) -> dict[str, int]:
        """Bytes of tensor data in each type, the largest first."""
        sums: dict[str, int] = {}
        for tensor in self.tensors:
            sums[tensor.type] = sums.get(tensor.type, 0) + tensor.n_bytes
        return dict(sorted(sums.items(), key=lambda item: -item[1]))

    @property
    def bits_per_weight(self) -> float:
        """Bits of tensor data for each parameter."""
        return sum(self.bytes_by_type.values()) * 8 / max(self.n_parameters, 1)

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the architecture, such as "llama" or "qwen2"; empty if unsaid."""
        return self._text("general.architecture") or ""

    @property
    def name(self) -> str:
        return self._text("general.name") or self.path.stem

    @property
    def file_type(self) -> str:
        """The quant that the file claims, such as "Q4_K_M"; bytes_by_type says what is in it."""
        number = self._number("general.file_type")
        return FILE_TYPES.get(number, f"unknown ({number})") if number is not None else "unsaid"

    @property
    def n_parts(self) -> int:
        """Into how many files the model is split; 1 if it is not."""
        return max(self._number("split.count") or 1, 1)

    @property
    def n_ctx_train(self) -> int | None:
        """The context length that the model was trained for, in tokens."""
        return self._number(f"{self.architecture}.context_length")

    @property
    def kv_numbers(self) -> int | None:
        """Numbers that a KV cache keeps for one token, over all layers.

        None where the header does not say so plainly: layers that differ, keys kept compressed, a
        sliding window, a state instead of a cache.
        """
        prefix = f"{self.architecture}."
        others = ("attention.kv_lora_rank", "attention.sliding_window", "ssm.state_size")
        if any(prefix + key in self.metadata for key in others):
            return None
        layers, width, heads, kv_heads = (
            self._number(prefix + key)
            for key in (
                "block_count",
                "embedding_length",
                "attention.head_count",
                "attention.head_count_kv",
            )
        )
        if not (layers and width and heads and kv_heads):
            return None
        key_length = self._number(prefix + "attention.key_length") or width // heads
        value_length = self._number(prefix + "attention.value_length") or width // heads
        return layers * kv_heads * (key_length + value_length)

    @property
    def rms_norm_eps(self) -> float | None:
        value = self.metadata.get(f"{self.architecture}.attention.layer_norm_rms_epsilon")
        return value if isinstance(value, float) else None

    @property
    def rope(self) -> dict[str, Any]:
        """The RoPE settings, such as freq_base, dimension_count, scaling.type, scaling.factor."""
        prefix = f"{self.architecture}.rope."
        return {
            key.removeprefix(prefix): value
            for key, value in self.metadata.items()
            if key.startswith(prefix)
        }

    @property
    def chat_template(self) -> str | None:
        """The chat template, untrusted: render it in a sandbox only."""
        return self._text("tokenizer.chat_template")

    @property
    def tokenizer(self) -> Tokenizer:
        tokens = self.metadata.get("tokenizer.ggml.tokens")
        add_bos = self.metadata.get("tokenizer.ggml.add_bos_token")
        return Tokenizer(
            model=self._text("tokenizer.ggml.model") or "",
            pre=self._text("tokenizer.ggml.pre") or "",
            n_tokens=tokens.length if isinstance(tokens, Summary) else 0,
            bos=self._number("tokenizer.ggml.bos_token_id"),
            eos=self._number("tokenizer.ggml.eos_token_id"),
            pad=self._number("tokenizer.ggml.padding_token_id"),
            add_bos=add_bos if isinstance(add_bos, bool) else None,
        )

    def _text(self, key: str) -> str | None:
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def _number(self, key: str) -> int | None:
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None


def inspect(path: str | os.PathLike[str]) -> GGUFInfo:
    """Read and check the header of a GGUF file; its tensor data is not read.

    ModelFileError, in one sentence: not a file, not a GGUF, cut short, counts or lengths that the
    file cannot hold, nested arrays, doubled names, shapes, types, offsets or an alignment that
    llama.cpp would refuse. What it passes, llama.cpp may still refuse: see `trial.check_loads`.
    """
    path = Path(path)
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "is not a file"
            raise ModelFileError(f"{path} {what}; give the path of a .gguf file.")
        with path.open("rb") as file:
            header = read_header(file, path)
            n_bytes = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror or error}.") from error
    return GGUFInfo(
        path, n_bytes, header.version, header.n_bytes, header.metadata, tuple(header.tensors)
    )


def list_parts(info: GGUFInfo) -> list[Path]:
    """Every file of a split model, in order; the one file of any other.

    ModelFileError where the name is not one that llama-gguf-split gives, or a part is not there.
    """
    if info.n_parts == 1:
        return [info.path]
    name = re.fullmatch(r"(.+)-\d{5}-of-(\d{5})\.gguf", info.path.name)
    if name is None or int(name[2]) != info.n_parts:
        raise ModelFileError(
            f"{info.path} is one part of {info.n_parts} and not named so; give it its old name."
        )
    parts = []
    for place in range(1, info.n_parts + 1):
        part = info.path.with_name(f"{name[1]}-{place:05}-of-{name[2]}.gguf")
        if not part.is_file():
            raise ModelFileError(f"{info.path} lacks its part {part.name}; fetch it again.")
        parts.append(part)
    return parts


def hash_model(info: GGUFInfo) -> str:
    """The sha256 of a model's file; that of its parts' hashes, if it is split."""
    found = [hashes.sha256_of(part) for part in list_parts(info)]
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()
