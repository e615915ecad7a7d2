"""QwQ-32B's tokenizer, built from the ranks of its byte pairs: for llama.cpp and transformers.

Qwen publishes its vocabulary as a list of 151,643 byte strings, each with a rank. A token's id is
its rank. The merges, which both engines want as well, follow from the ranks: the merge that makes
a token is the last step of encoding its own bytes with the ranks below it. `<|im_start|>` and the
25 other tokens that are no byte pairs are in `ADDED`. Byte-pair encoding: Sennrich et al., 2016
(arXiv:1508.07909), on bytes as in GPT-2.
"""

from __future__ import annotations

import base64
import json
import tempfile
from functools import cache
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

from .. import files, paths
from ..errors import FetchError, ModelFileError
from . import catalog

QWQ_NAME = "qwq-32b"
N_VOCAB = catalog.QWQ.n_vocab
QWQ_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_FORMAT = 2  # a folder built in another format is built anew


_SPECIAL = (
    "<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|> "
    "<|box_end|> <|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> "
    "<|image_pad|> <|video_pad|>"
).split()
_PLAIN = (
    "<tool_call> </tool_call> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> <|fim_pad|> "
    "<|repo_name|> <|file_sep|> <tool_response> </tool_response> <think> </think>"
).split()
# The tokens that are no byte pairs, and whether transformers takes each for a special one. They are
# in the order of their ids, which begin where the ranks end.
ADDED = {**dict.fromkeys(_SPECIAL, True), **dict.fromkeys(_PLAIN, False)}
FIRST_ADDED = 151_643
TEMPLATE = paths.data_dir() / "templates" / "with-think.jinja"
EOS, PAD, BOS = "<|im_end|>", "<|vision_pad|>", "<|endoftext|>"


def find_qwq_token(text: str) -> int:
    """Return the id of an added token.

    >>> find_qwq_token("<|im_end|>"), find_qwq_token("</think>")
    (151645, 151668)
    """
    return FIRST_ADDED + list(ADDED).index(text)


def read_ranks() -> dict[bytes, int]:
    """Return the bytes of each token with its rank. Raise FetchError if the file is missing."""
    path = paths.models_dir() / catalog.QWQ_RANKS.filename
    if not path.is_file() or files.sha256_of(path) != catalog.QWQ_RANKS.sha256:
        raise FetchError(
            f"The ranks of QwQ-32B's vocabulary are not at {path}; `qwqlab fetch "
            f"{catalog.QWQ_RANKS.name}` downloads them (3 MB)."
        )
    lines = (line.split() for line in path.read_bytes().splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def merge(token: bytes, ranks: dict[bytes, int], below: int | None = None) -> list[bytes]:
    """Return the parts of a token: join pairs, the lowest rank first, while one is below `below`.

    This is the definition of byte-pair encoding, short and slow.

    >>> merge(b"abab", {b"ab": 1, b"abab": 2}), merge(b"abab", {b"ab": 1, b"abab": 2}, below=2)
    ([b'abab'], [b'ab', b'ab'])
    """
    limit = len(ranks) + 256 if below is None else below
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 1:
        pairs = [a + b for a, b in pairwise(parts)]
        rank, at = min((ranks.get(pair, limit), place) for place, pair in enumerate(pairs))
        if rank >= limit:
            break
        parts[at : at + 2] = [pairs[at]]
    return parts


def recover_merges(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Return the pair that makes each token of more than one byte, in the order of the ranks.

    >>> recover_merges({b"a": 0, b"b": 1, b"ab": 2, b"abab": 3})
    [(b'a', b'b'), (b'ab', b'ab')]
    """
    pairs = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            parts = merge(token, ranks, below=rank)
            if len(parts) != 2:
                raise ModelFileError(f"no two tokens of lower rank make {token!r}; fetch it again")
            pairs.append((parts[0], parts[1]))
    return pairs


@cache
def byte_letters() -> tuple[str, ...]:
    """Return GPT-2's letter for each byte: itself if printable, else one from U+0100 on.

    >>> byte_letters()[ord("A")], byte_letters()[ord(" ")]
    ('A', 'Ġ')
    """
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return tuple(chr(byte) if byte in plain else chr(next(others)) for byte in range(256))


def spell(token: bytes) -> str:
    """Return a token's bytes in those letters, as vocabulary files write it.

    >>> spell(" é".encode())
    'ĠÃ©'
    """
    letters = byte_letters()
    return "".join(letters[byte] for byte in token)


def build_qwq() -> Path:
    """Return the folder of QwQ-32B's tokenizer; build it first if need be (5 s).

    transformers' AutoTokenizer reads `tokenizer.json` and its neighbours; llama.cpp reads
    `vocab.gguf`, a GGUF without tensors. The pad token is the article's, <|vision_pad|>. Raise
    FetchError if the ranks are not on this machine.
    """
    folder = paths.tokenizers_dir() / QWQ_NAME
    mark = folder / "built.json"
    proof = {"format": _FORMAT, "template": TEMPLATE.read_text(encoding="utf-8")}
    if files.read_json(mark) == proof:
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


def write_gguf(path: Path, ranks: dict[bytes, int], pairs: list[tuple[bytes, bytes]]) -> None:
    """Write a GGUF of the vocabulary alone, as convert_hf_to_gguf.py writes QwQ-32B's.

    The embedding has 152,064 rows, so ids without a token get a name and are marked unused. The
    converter marks all that is written in <| |> as control tokens, whether transformers calls them
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
    for text, special in ADDED.items():
        tokens.append(text)
        control = special or text.startswith("<|")
        types.append(TokenType.CONTROL if control else TokenType.USER_DEFINED)
    for number in range(len(tokens), N_VOCAB):
        tokens.append(f"[PAD{number}]")
        types.append(TokenType.UNUSED)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([f"{spell(left)} {spell(right)}" for left, right in pairs])
    writer.add_bos_token_id(find_qwq_token(BOS))
    writer.add_eos_token_id(find_qwq_token(EOS))
    writer.add_pad_token_id(find_qwq_token(PAD))
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE.read_text(encoding="utf-8"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def write_folder(folder: Path, ranks: dict[bytes, int], pairs: list[tuple[bytes, bytes]]) -> None:
    """Write the files from which transformers makes QwQ-32B's tokenizer, and two configurations."""
    from transformers import AddedToken, Qwen2Tokenizer

    make: Any = Qwen2Tokenizer  # its annotations take no None
    tokenizer = make(
        vocab={spell(token): rank for token, rank in ranks.items()},
        merges=[(spell(left), spell(right)) for left, right in pairs],
        unk_token=None,
        eos_token=None,  # set below: given here, they would get the first ids
        pad_token=None,
        model_max_length=catalog.QWQ.n_ctx_train,
    )
    tokenizer.add_tokens(
        [AddedToken(text, normalized=False, special=special) for text, special in ADDED.items()]
    )
    tokenizer.eos_token, tokenizer.pad_token = EOS, PAD
    tokenizer.chat_template = TEMPLATE.read_text(encoding="utf-8")
    tokenizer.save_pretrained(folder)
    ids = {"eos_token_id": find_qwq_token(EOS), "pad_token_id": find_qwq_token(PAD)}
    config = {
        **ids,
        "model_type": "qwen2",
        # Without it transformers takes the folder for one of Mistral's and warns.
        "transformers_version": version("transformers"),
        "vocab_size": N_VOCAB,
        "bos_token_id": find_qwq_token(BOS),
    }
    generation = {**ids, "eos_token_id": [find_qwq_token(EOS), find_qwq_token(BOS)]}
    files.write_json(folder / "config.json", config)
    files.write_json(folder / "generation_config.json", generation)
