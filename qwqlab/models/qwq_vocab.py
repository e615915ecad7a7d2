"""QwQ-32B's tokenizer, built from byte-pair ranks: once for llama.cpp, once for transformers.

The ranks hold the 151,643 byte pairs; `<|im_start|>` and the 25 others are in `ADDED`.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .. import catalog, files, hashes, paths
from .byte_pairs import read_ranks, recover_merges, spell

NAME = "qwq-32b"
N_VOCAB = catalog.QWQ.n_vocab
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_FORMAT = 1  # what was built by an older version is built anew


@dataclass(frozen=True)
class Added:
    """A token beside the byte pairs, and whether transformers takes it for a special one."""

    text: str
    special: bool


_SPECIAL = (
    "<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|> "
    "<|box_end|> <|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> "
    "<|image_pad|> <|video_pad|>"
).split()
_PLAIN = (
    "<tool_call> </tool_call> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> <|fim_pad|> "
    "<|repo_name|> <|file_sep|> <tool_response> </tool_response> <think> </think>"
).split()
# In the order of their ids, which begin where the ranks end.
ADDED = (*(Added(text, True) for text in _SPECIAL), *(Added(text, False) for text in _PLAIN))
FIRST_ADDED = 151_643
TEMPLATE = paths.data_dir() / "templates" / "with-think.jinja"
EOS, PAD, BOS = "<|im_end|>", "<|vision_pad|>", "<|endoftext|>"


def id_of(token: str) -> int:
    """The id of an added token.

    >>> id_of("<|im_end|>"), id_of("<|vision_pad|>"), id_of("</think>")
    (151645, 151654, 151668)
    """
    return FIRST_ADDED + [added.text for added in ADDED].index(token)


def build() -> Path:
    """The folder of QwQ-32B's tokenizer, built (5 s) if it is not there.

    `tokenizer.json` and its neighbours are what transformers' AutoTokenizer reads, `vocab.gguf` is
    a GGUF without tensors for llama.cpp. The pad token is the article's, <|vision_pad|>.
    """
    folder = paths.tokenizers_dir() / NAME
    mark = folder / "built.json"
    proof = {"format": _FORMAT, "template": _read_template()}
    if hashes.read_json(mark) == proof:
        return folder
    ranks = read_ranks()
    pairs = recover_merges(ranks)
    files.make_folder(folder)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        made = Path(name)
        write_folder(made, ranks, pairs)
        write_gguf(made / "vocab.gguf", ranks, pairs)
        for file in made.iterdir():
            file.replace(folder / file.name)
    files.write_text(mark, json.dumps(proof))
    return folder


def write_gguf(
    path: Path, ranks: dict[bytes, int], pairs: list[tuple[bytes, bytes]], pad: str = PAD
) -> None:
    """A GGUF with the vocabulary alone, as convert_hf_to_gguf.py writes QwQ-32B's.

    The embedding has 152,064 rows, so ids without a token get a name and are marked unused. The
    converter marks whatever stands in <| |> as a control token, whether transformers calls it
    special or not; <think>, <tool_call> and their like are user-defined tokens.
    """
    from gguf import GGUFWriter, TokenType

    writer = GGUFWriter(path, "qwen2")
    writer.add_name("QwQ-32B vocabulary")
    writer.add_context_length(catalog.QWQ.n_ctx_train)
    writer.add_embedding_length(catalog.QWQ.n_embd)
    writer.add_block_count(catalog.QWQ.n_layers)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    tokens = [spell(token) for token in sorted(ranks, key=ranks.__getitem__)]
    types = [TokenType.NORMAL] * len(tokens)
    for added in ADDED:
        tokens.append(added.text)
        control = added.special or added.text.startswith("<|")
        types.append(TokenType.CONTROL if control else TokenType.USER_DEFINED)
    for number in range(len(tokens), N_VOCAB):
        tokens.append(f"[PAD{number}]")
        types.append(TokenType.UNUSED)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([f"{spell(left)} {spell(right)}" for left, right in pairs])
    writer.add_bos_token_id(id_of(BOS))
    writer.add_eos_token_id(id_of(EOS))
    writer.add_pad_token_id(id_of(pad))
    writer.add_add_bos_token(False)
    if template := _read_template():
        writer.add_chat_template(template)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def write_folder(
    folder: Path, ranks: dict[bytes, int], pairs: list[tuple[bytes, bytes]], pad: str = PAD
) -> None:
    """The files from which transformers makes QwQ-32B's tokenizer, and its two configurations."""
    written: dict[str, Any] = {
        "tokenizer.json": _describe_tokenizer(ranks, pairs),
        "tokenizer_config.json": {
            "tokenizer_class": "Qwen2Tokenizer",
            "add_bos_token": False,
            "bos_token": None,
            "eos_token": EOS,
            "pad_token": pad,
            "unk_token": None,
            "model_max_length": catalog.QWQ.n_ctx_train,
            "clean_up_tokenization_spaces": False,
        },
        "config.json": {
            "model_type": "qwen2",
            # Without it transformers takes the folder for one of Mistral's and warns.
            "transformers_version": version("transformers"),
            "vocab_size": N_VOCAB,
            "bos_token_id": id_of(BOS),
            "eos_token_id": id_of(EOS),
            "pad_token_id": id_of(pad),
        },
        "generation_config.json": {
            "eos_token_id": [id_of(EOS), id_of(BOS)],
            "pad_token_id": id_of(pad),
        },
    }
    if template := _read_template():
        written["tokenizer_config.json"]["chat_template"] = template
    for name, content in written.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _read_template() -> str | None:
    return TEMPLATE.read_text(encoding="utf-8") if TEMPLATE.is_file() else None


def _describe_tokenizer(
    ranks: dict[bytes, int], pairs: list[tuple[bytes, bytes]]
) -> dict[str, Any]:
    added = [
        {
            "id": FIRST_ADDED + place,
            "content": token.text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": token.special,
        }
        for place, token in enumerate(ADDED)
    ]
    split = {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated"}
    levels = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{**split, "invert": False}, {**levels, "use_regex": False}],
        },
        "post_processor": {**levels, "use_regex": False},
        "decoder": {**levels, "use_regex": False},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {spell(token): rank for token, rank in ranks.items()},
            "merges": [[spell(left), spell(right)] for left, right in pairs],
        },
    }
