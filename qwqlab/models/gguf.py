"""Describe a model by the header of its GGUF file: `GGUFInfo` for programs, lines for people."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import files
from ..errors import ModelFileError
from ..files import show_size
from ..llamacpp import FILE_TYPES
from .gguf_header import Summary, Tensor, printable, read_header

SMALL = 1 << 30
"""Bytes up to which a model is small: read into memory whole, and copied without being asked."""

# The name that llama-gguf-split gives to a part of a model.
SPLIT = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})\.gguf")


@dataclass(frozen=True)
class Tokenizer:
    """The vocabulary in short: llama.cpp's name of the algorithm, and the ids of some tokens.

    A number that the file does not give is None.
    """

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

    metadata:  every key with its value, an array as a `Summary`.
    tensors:   in the file's order.
    """

    path: Path
    n_bytes: int
    version: int
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
        """The quant that the file claims, such as "Q4_K_M"; see bytes_by_type for what is in it."""
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
    def n_embd(self) -> int | None:
        """The width of a token's vector between two layers."""
        return self._number(f"{self.architecture}.embedding_length")

    @property
    def kv_numbers(self) -> int | None:
        """Numbers that a KV cache keeps for one token, over all layers.

        None where the header does not give it plainly: layers that differ, keys kept compressed, a
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
    def n_rows(self) -> int | None:
        """Rows of the embedding, None if the file has none."""
        shapes = [tensor.shape for tensor in self.tensors if tensor.name == "token_embd.weight"]
        return shapes[0][-1] if shapes and shapes[0] else None

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
    def sampling(self) -> dict[str, str]:
        """The sampling settings that the file brings, as the text that llama.cpp reads them from.

        The names are those of its keys, without general.sampling.; llama.cpp reads no arrays.
        """
        prefix = "general.sampling."
        return {
            key.removeprefix(prefix): _as_text(value)
            for key, value in self.metadata.items()
            if key.startswith(prefix) and not isinstance(value, Summary)
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

    def token(self, number: int) -> str | None:
        """Return the text of a token as the file has it, None if it has no such token."""
        tokens = self.metadata.get("tokenizer.ggml.tokens")
        if not isinstance(tokens, Summary) or not 0 <= number < tokens.length:
            return None
        if not isinstance(tokens.head[0], str):
            return None
        with self.path.open("rb") as file:
            file.seek(tokens.start)
            for _ in range(number + 1):
                text = file.read(int.from_bytes(file.read(8), "little"))
        return text.decode("utf-8", "replace")

    def _text(self, key: str) -> str | None:
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def _number(self, key: str) -> int | None:
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None


def inspect(path: str | os.PathLike[str]) -> GGUFInfo:
    """Return the header of a GGUF file; its tensor data is not read.

    Raise ModelFileError, with one sentence, for what is not a GGUF file, is cut short, has lengths
    or types that cannot be, or a header beyond 64 MiB, 262,144 keys or as many tensors. What passes
    here llama.cpp may still refuse: see `trial.check_loads`.
    """
    path = Path(path)
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "is not a file"
            raise ModelFileError(f"{path} {what}; give the path of a .gguf file.")
        with path.open("rb", buffering=1 << 16) as file:
            header = read_header(file, path)
            n_bytes = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror or error}.") from error
    return GGUFInfo(path, n_bytes, *header)


def list_parts(info: GGUFInfo) -> list[Path]:
    """Return every file of a split model in order, or the one file of any other.

    Raise ModelFileError if the name is not one that llama-gguf-split gives, or a part is missing.
    """
    if info.n_parts == 1:
        return [info.path]
    name = SPLIT.fullmatch(info.path.name)
    if name is None or int(name["count"]) != info.n_parts:
        raise ModelFileError(
            f"{info.path} is one part of {info.n_parts} and not named so; give it its old name."
        )
    parts = []
    for place in range(1, info.n_parts + 1):
        part = info.path.with_name(f"{name['stem']}-{place:05}-of-{name['count']}.gguf")
        if not part.is_file():
            raise ModelFileError(f"{info.path} needs {part.name}, which is missing; fetch that.")
        parts.append(part)
    return parts


def hash_model(info: GGUFInfo) -> str:
    """Return the sha256 of a model's file, or that of its parts' hashes if it is split."""
    found = [files.sha256_of(part) for part in list_parts(info)]
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()


def read_description(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what `qwqlab inspect --json` prints: the header's values, ready for JSON.

    tensors holds their number in all and by type, types the bytes of each type. Raise
    ModelFileError as `inspect` does.
    """
    info = inspect(path)
    tokenizer = info.tokenizer
    return {
        "path": str(info.path),
        "format": f"GGUF {info.version}",
        "architecture": info.architecture,
        "name": info.name,
        "file_type": info.file_type,
        "bytes": info.n_bytes,
        "parts": info.n_parts,
        "parameters": info.n_parameters,
        "bits_per_weight": round(info.bits_per_weight, 3),
        "tensors": {
            "count": info.n_tensors,
            "by_type": dict(Counter(tensor.type for tensor in info.tensors).most_common()),
        },
        "types": info.bytes_by_type,
        "context": info.n_ctx_train,
        "rms_norm_eps": _plain(info.rms_norm_eps),
        "rope": {key: _plain(value) for key, value in info.rope.items()},
        "sampling": info.sampling,
        "vocabulary": {
            "model": tokenizer.model,
            "pre": tokenizer.pre,
            "tokens": tokenizer.n_tokens,
            "add_bos": tokenizer.add_bos,
        },
        "bos": tokenizer.bos,
        "eos": tokenizer.eos,
        "pad": tokenizer.pad,
        "template": info.chat_template,
        "warnings": _list_warnings(info),
    }


def _list_warnings(info: GGUFInfo) -> list[str]:
    """Return what a person should know before using the file, a sentence each."""
    found = []
    tokenizer, n_tokens = info.tokenizer, info.tokenizer.n_tokens
    if not info.architecture:
        found.append("The file does not name its architecture, so llama.cpp will refuse it.")
    if info.n_parts > 1:
        try:
            list_parts(info)
        except ModelFileError as error:
            found.append(str(error))
    elif not info.tensors:
        found.append("The file holds no tensors: it is a vocabulary, and cannot generate.")
    if n_tokens and tokenizer.eos is None:
        found.append("The file names no eos token; llama.cpp then goes by the texts of tokens.")
    for name, token in (("bos", tokenizer.bos), ("eos", tokenizer.eos), ("pad", tokenizer.pad)):
        if token is not None and n_tokens and not 0 <= token < n_tokens:
            found.append(f"The {name} token is {token}, but the vocabulary has {n_tokens} tokens.")
    if tokenizer.pad is not None and tokenizer.pad == tokenizer.eos:
        found.append(
            f"The pad token is also the eos token, {tokenizer.pad}: a model fine-tuned with such "
            "padding may never learn to stop."
        )
    if n_tokens and info.n_rows not in (None, n_tokens):
        found.append(f"The embedding has {info.n_rows} rows for {n_tokens} tokens.")
    return found


def show_description(values: dict[str, Any]) -> str:
    """Return the values of `read_description` as lines of text; names from the file are escaped."""
    template, shape = values["template"], values["vocabulary"]
    name, architecture = printable(values["name"]), printable(values["architecture"])
    kinds = f"{printable(shape['model'])}, {printable(shape['pre'])}"
    types = ", ".join(
        f"{values['tensors']['by_type'][kind]} in {kind} ({show_size(n_bytes)})"
        for kind, n_bytes in values["types"].items()
    )
    lines = {
        "file": f"{values['path']}, {show_size(values['bytes'])}, {values['format']}",
        "model": f"{name}, architecture {architecture or 'unsaid'}",
        "quant": f"{values['file_type']}, {values['bits_per_weight']} bits a weight",
        "weights": f"{values['parameters']:,} in {values['tensors']['count']} tensors",
        "types": types or "none",
        "context": "unsaid" if values["context"] is None else f"{values['context']:,} tokens",
        "vocabulary": f"{shape['tokens']:,} tokens ({kinds})",
        "tokens": ", ".join(f"{key} {values[key]}" for key in ("bos", "eos", "pad")),
        "template": "none" if template is None else f"{len(template):,} characters",
    }
    if own := values["sampling"]:
        lines["sampling"] = ", ".join(f"{printable(k)} {printable(v)}" for k, v in own.items())
    text = [f"{label:<11}{line}" for label, line in lines.items()]
    return "\n".join([*text, *(f"{'warning':<11}{warning}" for warning in values["warnings"])])


def _as_text(value: Any) -> str:
    """Return a number or a text as llama.cpp's gguf_kv_to_str does."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:f}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    """Return a value that JSON can hold: an array's first few elements, an infinity as text."""
    if isinstance(value, Summary):
        return [_plain(each) for each in value.head]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
