"""A GGUF's header for a reader: the values worth knowing, and what is odd about them."""

from __future__ import annotations

import math
import os
from collections import Counter
from typing import Any

from ..entries import show_size
from .gguf_cursor import show
from .gguf_file import GGUFInfo, inspect, list_parts
from .gguf_values import Summary


def describe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What the header of a GGUF says, as JSON-ready values; ModelFileError as `inspect` raises it.

    tensors holds their number in all and by type, types the bytes that each type takes.
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
        "warnings": list_warnings(info),
    }


def list_warnings(info: GGUFInfo) -> list[str]:
    """What a person should know before using the file, a sentence each."""
    found = []
    tokenizer, n_tokens = info.tokenizer, info.tokenizer.n_tokens
    if not info.architecture:
        found.append("The file does not name its architecture, so llama.cpp will refuse it.")
    if info.n_parts > 1:
        try:
            list_parts(info)
        except ValueError as error:
            found.append(str(error))
    elif not info.tensors:
        found.append("The file holds no tensors: it is a vocabulary, and cannot generate.")
    if info.file_type.startswith("unknown"):
        found.append(f"The file claims a quant that the lab does not know: {info.file_type}.")
    if info.n_ctx_train is None:
        found.append("The file does not say for how long a context the model was trained.")
    if not n_tokens:
        found.append("The file brings no vocabulary.")
    elif tokenizer.eos is None:
        found.append("The file names no eos token; llama.cpp then goes by the texts of tokens.")
    for name, token in (("bos", tokenizer.bos), ("eos", tokenizer.eos), ("pad", tokenizer.pad)):
        if token is not None and n_tokens and not 0 <= token < n_tokens:
            found.append(f"The {name} token is {token}, but the vocabulary has {n_tokens} tokens.")
    if tokenizer.pad is not None and tokenizer.pad == tokenizer.eos:
        found.append(
            f"The pad token is also the eos token, {tokenizer.pad}: a model fine-tuned with such "
            "padding may never learn to stop."
        )
    rows = [each.shape[-1] for each in info.tensors if each.name == "token_embd.weight"]
    if rows and n_tokens and rows[0] != n_tokens:
        found.append(f"The embedding has {rows[0]} rows for {n_tokens} tokens.")
    if n_tokens and info.chat_template is None:
        found.append("The file brings no chat template.")
    return found


def show_description(values: dict[str, Any]) -> str:
    """The values of `describe` for a person, a line each; text from the file is escaped."""
    shape = values["vocabulary"]
    template = values["template"]
    types = ", ".join(
        f"{values['tensors']['by_type'][name]} in {name} ({show_size(n_bytes)})"
        for name, n_bytes in values["types"].items()
    )
    lines = {
        "file": f"{values['path']}, {show_size(values['bytes'])}, {values['format']}",
        "model": f"{show(values['name'])}, architecture {show(values['architecture']) or 'unsaid'}",
        "quant": f"{values['file_type']}, {values['bits_per_weight']} bits a weight",
        "weights": f"{values['parameters']:,} in {values['tensors']['count']} tensors",
        "types": types or "none",
        "context": "unsaid" if values["context"] is None else f"{values['context']:,} tokens",
        "vocabulary": f"{shape['tokens']:,} tokens ({show(shape['model'])}, {show(shape['pre'])})",
        "tokens": ", ".join(f"{name} {values[name]}" for name in ("bos", "eos", "pad")),
        "template": "none" if template is None else f"{len(template):,} characters",
    }
    text = [f"{name:<11}{line}" for name, line in lines.items()]
    return "\n".join([*text, *(f"{'warning':<11}{warning}" for warning in values["warnings"])])


def _plain(value: Any) -> Any:
    """A value that JSON holds: an array's first few, and no infinities."""
    if isinstance(value, Summary):
        return [_plain(each) for each in value.head]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
