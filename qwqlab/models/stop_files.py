"""What a model's folder, or its GGUF, says of the tokens that pad and that stop. All untrusted."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ChatError, ModelFileError
from .gguf_cursor import show
from .rendering import Conversation, render
from .tokenizers import LlamaTokenizer

LIMITS = {
    "config.json": 4 << 20,
    "generation_config.json": 4 << 20,
    "tokenizer_config.json": 16 << 20,
    "special_tokens_map.json": 4 << 20,
    "added_tokens.json": 16 << 20,
    "vocab.json": 16 << 20,
    "tokenizer.json": 48 << 20,
}
ANSWER = "An answer whose end is looked for."
TEMPLATE = "chat_template.jinja"
TEMPLATE_BYTES = 1 << 20
MAX_ID = (1 << 31) - 1


@dataclass
class Said:
    """Who says what: each pad and stop with the file and key it stands in.

    texts:     the text of each token that is known, by id; ids the other way round.
    control:   texts of tokens that steer a model.
    n_tokens, n_rows: size of the vocabulary, and rows of the embedding; None if unsaid.
    problems:  values that cannot be what they should be, a sentence each.
    """

    pads: dict[str, int] = field(default_factory=dict)
    stops: dict[str, tuple[int, ...]] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)
    ids: dict[str, int] = field(default_factory=dict)
    control: set[str] = field(default_factory=set)
    eos_text: str | None = None
    n_tokens: int | None = None
    n_rows: int | None = None
    template: str | None = None
    problems: list[str] = field(default_factory=list)


def read_gguf(path: Path) -> Said:
    """What a GGUF says, and at which tokens llama.cpp stops with it. ModelFileError as there."""
    with LlamaTokenizer(path) as tokenizer:
        info, special = tokenizer.info, tokenizer.special_tokens
        said = Said(n_tokens=tokenizer.n_tokens, template=info.chat_template)
        vocabulary = info.tokenizer
        named = {vocabulary.pad, vocabulary.eos, *special, *tokenizer.end_tokens}
        known = sorted(token for token in named if _is_id(token) and token < tokenizer.n_tokens)
        said.texts = dict(zip(known, tokenizer.pieces(known), strict=True))
        said.ids = {text: token for token, text in said.texts.items()}
        said.control = {said.texts[token] for token, hidden in special.items() if hidden}
        said.stops["llama.cpp"] = tokenizer.end_tokens
    _keep(said, "pad", "tokenizer.ggml.padding_token_id", vocabulary.pad)
    _keep(said, "stop", "tokenizer.ggml.eos_token_id", vocabulary.eos)
    said.eos_text = said.texts.get(vocabulary.eos) if vocabulary.eos is not None else None
    rows = [each.shape for each in info.tensors if each.name == "token_embd.weight"]
    said.n_rows = rows[0][1] if rows and len(rows[0]) == 2 else None
    return said


def read_folder(folder: Path) -> Said:
    """What the files of a model for transformers say.

    ModelFileError for a folder without any of them, and for a file that is too long or no JSON.
    """
    files = {name: _read_json(folder / name, limit) for name, limit in LIMITS.items()}
    if not any(files[name] for name in LIMITS if "config" in name or name == "tokenizer.json"):
        raise ModelFileError(
            f"{folder} holds no config.json, tokenizer.json or tokenizer_config.json; give the "
            "folder of a model."
        )
    said = Said()
    _read_vocabulary(said, files)
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        for key in ("pad", "eos"):
            text = _text_of(files[name].get(f"{key}_token"))
            if text is not None:
                said.eos_text = text if key == "eos" else said.eos_text
                _keep_text(said, "pad" if key == "pad" else "stop", f"{name} {key}_token", text)
    for name in ("config.json", "generation_config.json"):
        for key, kind in (("pad", "pad"), ("eos", "stop")):
            _keep(said, kind, f"{name} {key}_token_id", files[name].get(f"{key}_token_id"))
    rows = files["config.json"].get("vocab_size")
    said.n_rows = rows if _is_id(rows) else None
    said.template = _read_template(folder) or _text_of(
        files["tokenizer_config.json"].get("chat_template")
    )
    return said


def find_turn_end(said: Said) -> str | None:
    """The token that the chat template writes first after an answer; None if there is none.

    The template is rendered for that (0.1 s), in the sandbox; one that fails says nothing.
    """
    tokens = {*said.control, said.eos_text or ""} - {""}
    if not tokens or "{" not in (said.template or ""):
        return None
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": ANSWER}]
    try:
        prompt = render(
            said.template or "",
            Conversation(turns, add_generation_prompt=False),
            variables={"bos_token": "", "eos_token": said.eos_text or ""},
        )
    except ChatError:
        return None
    behind = prompt.rpartition(ANSWER)[2] if ANSWER in prompt else ""
    # Where one token begins another, the longer one is meant.
    found = [(behind.find(text), -len(text), text) for text in tokens if text in behind]
    return min(found)[2] if found else None


def _read_json(path: Path, limit: int) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        with path.open("rb") as file:
            raw = file.read(limit + 1)
        if len(raw) > limit:
            raise ModelFileError(f"{path} is longer than {limit >> 20} MB; take another file.")
        values = json.loads(raw)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, ModelFileError):
            raise
        reason = "it nests too deep" if isinstance(error, RecursionError) else show(str(error))
        raise ModelFileError(f"{path} is not JSON: {reason}; fetch it again.") from None
    if not isinstance(values, dict):
        raise ModelFileError(f"{path} is not a JSON object; fetch it again.")
    return values


def _read_vocabulary(said: Said, files: dict[str, dict[str, Any]]) -> None:
    model = files["tokenizer.json"].get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else files["vocab.json"]
    if isinstance(vocab, list):  # Unigram: pairs of a piece and its score, in the order of the ids
        vocab = {
            pair[0]: token
            for token, pair in enumerate(vocab)
            if isinstance(pair, list) and pair and isinstance(pair[0], str)
        }
    pairs = list(vocab.items()) if isinstance(vocab, dict) else []
    added: list[tuple[Any, Any]] = [*files["added_tokens.json"].items()]
    listed = files["tokenizer.json"].get("added_tokens")
    listed = listed if isinstance(listed, list) else []
    described = [each for each in listed if isinstance(each, dict)]
    decoder = files["tokenizer_config.json"].get("added_tokens_decoder")
    for token, each in decoder.items() if isinstance(decoder, dict) else []:
        if isinstance(each, dict) and token.isdecimal() and len(token) < 11:
            described.append({**each, "id": int(token)})
    for each in described:
        added.append((each.get("content"), each.get("id")))
        if each.get("special") is True and isinstance(each.get("content"), str):
            said.control.add(each["content"])
    for text, token in [*pairs, *added]:
        if isinstance(text, str) and _is_id(token):
            said.texts[token], said.ids[text] = text, token
    said.n_tokens = max(said.texts) + 1 if said.texts else None


def _read_template(folder: Path) -> str | None:
    path = folder / TEMPLATE
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            return file.read(TEMPLATE_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}.") from None


def _text_of(value: Any) -> str | None:
    """A token or template that stands as a string, in an object, or in a list of named ones."""
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, dict):
        value = value.get("content", value.get("template"))
    return value[:TEMPLATE_BYTES] if isinstance(value, str) else None


def _keep(said: Said, kind: str, where: str, value: Any) -> None:
    if value is None:
        return
    values = value if isinstance(value, list) else [value]
    if not values or len(values) > 1000 or not all(_is_id(each) for each in values):
        said.problems.append(f"{where} is {show(json.dumps(value))}, which is no token id.")
    elif kind == "pad":
        said.pads[where] = values[0]
    else:
        said.stops[where] = tuple(values)


def _keep_text(said: Said, kind: str, where: str, text: str) -> None:
    token = said.ids.get(text)
    if token is None:
        said.problems.append(f"{where} is {show(text)}, which is not in the vocabulary.")
    else:
        _keep(said, kind, where, token)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_ID
