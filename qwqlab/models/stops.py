"""Which tokens pad and which stop, and whether a model fine-tuned with them learns to stop.

The article: pad with <|vision_pad|> and never with a token that ends a turn, or generations never
end. It matters where a collator finds the padding by its id: DataCollatorForLanguageModeling of
transformers takes every label that equals the pad token out of the loss, real ends included.

A GGUF is asked through llama.cpp, and a folder through transformers, as training will read it.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .. import files, paths
from ..errors import ChatError, ModelFileError
from . import local, qwq
from .chat import Conversation, choose_template, render
from .gguf_header import printable
from .tokenizers import (
    LlamaTokenizer,
    TransformersTokenizer,
    import_transformers,
    offline,
    readable,
)

TEXT_PARTS = ("text_config", "llm_config", "language_config", "thinker_config", "decoder")
"""Where configurations of models with pictures or sound keep what describes the language model."""


@dataclass(frozen=True)
class Token:
    """A token's id and its text, None if that is not known."""

    id: int
    text: str | None

    def __str__(self) -> str:
        return f"{self.id}" if self.text is None else f"{self.id} {printable(self.text)}"


@dataclass(frozen=True)
class Finding:
    """One thing checked: whether it is as it should be, and a sentence about it."""

    name: str
    ok: bool
    text: str


@dataclass(frozen=True)
class StopCheck:
    """What a model's files give for padding and stopping, and what follows.

    pad:       what fills up a batch.
    stops:     every token that ends a generation.
    turn_end:  what the chat template writes after a message; None if that is not plain.
    n_tokens, n_rows: size of the vocabulary, and rows of the embedding.

    What the files do not give is None.
    """

    source: str
    pad: Token | None
    stops: tuple[Token, ...]
    turn_end: Token | None
    n_tokens: int
    n_rows: int | None
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """True if every finding is as it should be."""
        return all(finding.ok for finding in self.findings)

    def as_text(self) -> str:
        """Return the lines that `qwqlab inspect` prints for a folder."""
        stops = ", ".join(map(str, self.stops)) or "unsaid"
        lines = [
            f"source    {self.source}",
            f"pad       {'unsaid' if self.pad is None else self.pad}",
            f"stops     {stops}",
            f"turn end  {'not plain' if self.turn_end is None else self.turn_end}",
        ]
        lines += [f"[{'OK' if each.ok else '!!'}]      {each.text}" for each in self.findings]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return values ready for JSON."""
        return {**asdict(self), "ok": self.ok}


def check_stops(source: str | os.PathLike[str]) -> StopCheck:
    """Check the pad and stop tokens of a folder, a GGUF or a name that `model_path` knows.

    Raise ModelFileError if the files can't be read, FetchError if the model is not on this machine.

    >>> check_stops("smollm2-135m").pad, check_stops("qwq-32b").ok
    (Token(id=2, text='<|im_end|>'), True)
    """
    path = paths.from_user(source)
    if os.fspath(source) == qwq.QWQ_NAME and not path.exists():
        path = qwq.build_qwq()
    path = path if path.is_dir() else local.model_path(source)
    said = _read_folder(path) if path.is_dir() else _read_gguf(path)
    pad = said.name(next(iter(said.pads.values()), None))
    stops = tuple(Token(each, said.texts.get(each)) for each in said.chief)
    turn_end = _find_turn_end(said)
    judged = {
        "pad is no stop": _check_pad(pad, stops, turn_end),
        "ids are in the vocabulary": _check_places(said),
        "files agree": _check_agreement(said),
        "turns end in a stop": _check_turn_end(stops, turn_end, said),
        "the article's advice": _check_advice(said, pad),
    }
    findings = [Finding(name, *found) for name, found in judged.items() if found]
    if not path.is_dir():
        others = [str(stop) for stop in stops if stop.text != said.eos_text]
        text = f"llama.cpp stops at {len(others)} tokens more for their texts: {', '.join(others)}."
        findings.append(Finding("stops by their texts", True, text))
    return StopCheck(str(path), pad, stops, turn_end, said.n_tokens, said.n_rows, tuple(findings))


@dataclass
class _Said:
    """What the files give: each pad and stop under the file and key that it comes from.

    n_tokens, n_rows: size of the vocabulary, and rows of the embedding, None if not given.
    texts:     the text of each token by its id.
    control:   ids of tokens that steer a model.
    """

    n_tokens: int
    n_rows: int | None
    texts: dict[int, str]
    control: set[int]
    eos: int | None
    template: str | None
    pads: dict[str, int] = field(default_factory=dict)
    stops: dict[str, list[int]] = field(default_factory=dict)

    @property
    def chief(self) -> list[int]:
        """The stops that generate() and llama.cpp go by: those that were kept last."""
        return list(self.stops.values())[-1] if self.stops else []

    @property
    def eos_text(self) -> str:
        return self.texts.get(-1 if self.eos is None else self.eos, "")

    def name(self, token: int | None) -> Token | None:
        return None if token is None else Token(token, self.texts.get(token))

    def keep(self, where: str, pad: Any, eos: Any) -> None:
        """Take the pad and the stops that `where` gives; ModelFileError for what is no id."""
        if pad is not None:
            (self.pads[f"{where} pad_token_id"],) = _read_ids(f"{where} pad_token_id", [pad])
        if eos is not None:
            self.stops[f"{where} eos_token_id"] = _read_ids(f"{where} eos_token_id", eos)


def _read_gguf(path: Path) -> _Said:
    """Return what a GGUF gives, and at which tokens llama.cpp stops with it."""
    with LlamaTokenizer(path) as tokenizer:
        info, special, stops = tokenizer.info, tokenizer.special_tokens, tokenizer.end_tokens
        n_tokens, vocabulary = tokenizer.n_tokens, info.tokenizer
        named = {vocabulary.pad, vocabulary.eos} - {None}
        known = [token for token in {*named, *special, *stops} if 0 <= token < n_tokens]
        texts = dict(zip(known, tokenizer.pieces(known), strict=True))
    control = {token for token, hidden in special.items() if hidden}
    said = _Said(n_tokens, info.n_rows, texts, control, vocabulary.eos, info.chat_template)
    said.keep("tokenizer.ggml", vocabulary.pad, vocabulary.eos)
    said.keep("llama.cpp", None, list(stops))
    return said


def _read_folder(folder: Path) -> _Said:
    """Return what a folder for transformers gives: its tokenizer and its two configurations."""
    tokenizer = TransformersTokenizer(folder).tokenizer
    generation = _read_json(folder / "generation_config.json")
    config = _lift_text(_read_json(folder / "config.json"))
    texts = {token: text for text, token in tokenizer.get_vocab().items()}
    added = tokenizer.added_tokens_decoder.items()
    control = {number for number, token in added if token.special}
    rows, eos = _count_rows(folder, config), tokenizer.eos_token_id
    template = choose_template(tokenizer)
    said = _Said(len(tokenizer), rows, texts, control, eos, template)
    said.keep("the tokenizer's", tokenizer.pad_token_id, eos)
    said.keep("config.json", config.get("pad_token_id"), config.get("eos_token_id"))
    said.keep(
        "generation_config.json", generation.get("pad_token_id"), generation.get("eos_token_id")
    )
    return said


def _read_json(path: Path) -> dict[str, Any]:
    """Return a file's JSON object, an empty one if there is no such file."""
    values = files.parse_json(path, ModelFileError) if path.is_file() else {}
    if not isinstance(values, dict):
        raise ModelFileError(f"{path} holds no JSON object; fetch it again.")
    return values


def _lift_text(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration's values, and those of its text part where it has none itself.

    >>> _lift_text({"eos_token_id": None, "text_config": {"eos_token_id": 4}})["eos_token_id"]
    4
    """
    found: dict[str, Any] = {}
    part: dict[str, Any] | None = config
    while part is not None:
        found = {**{key: value for key, value in part.items() if value is not None}, **found}
        inner = (part.get(name) for name in TEXT_PARTS)
        part = next((values for values in inner if isinstance(values, dict)), None)
    return found


def _count_rows(folder: Path, config: dict[str, Any]) -> int | None:
    """Return the rows of the embedding as transformers reads them, or those that `config` states.

    A configuration may leave out what its architecture gives.
    """
    try:
        with offline(), readable(folder) as plain:
            read = import_transformers().AutoConfig.from_pretrained(
                str(plain), local_files_only=True, trust_remote_code=False
            )
        rows = read.get_text_config(decoder=True).vocab_size
    except Exception:  # noqa: BLE001  # its readers raise whatever a file leads them to
        rows = config.get("vocab_size")
    return None if rows is None else _read_ids(f"{folder}: vocab_size", [rows])[0]


def _read_ids(where: str, value: Any) -> list[int]:
    """Return a number or a list of them as a list; raise ModelFileError for anything else."""
    ids = value if isinstance(value, list) else [value]
    if not all(type(number) is int for number in ids):
        raise ModelFileError(f"{where} is {printable(str(value), 40)}, which is no whole number.")
    return ids


def _find_turn_end(said: _Said) -> Token | None:
    """Return the token that the chat template writes first after an answer, or None.

    The template is rendered for that (0.1 s), in the sandbox; None if it fails.
    """
    chosen = {*said.control, said.eos}
    tokens = {text: token for token, text in said.texts.items() if text and token in chosen}
    if not tokens or not said.template:
        return None
    answer = "An answer whose end is looked for."
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}]
    try:
        prompt = render(
            said.template,
            Conversation(turns, add_generation_prompt=False),
            variables={"bos_token": "", "eos_token": said.eos_text},
        )
    except ChatError:
        return None
    behind = prompt.rpartition(answer)[2] if answer in prompt else ""
    # Where one token begins another, the longer one is meant.
    found = [
        (behind.find(text), -len(text), token) for text, token in tokens.items() if text in behind
    ]
    return said.name(min(found)[2]) if found else None


def _check_pad(
    pad: Token | None, stops: tuple[Token, ...], turn_end: Token | None
) -> tuple[bool, str]:
    if pad is None:
        return False, "No pad token is set; trainers then pad with eos, which is a stop."
    if pad not in stops:
        return True, f"The pad token {pad} is not one at which generation stops."
    if turn_end in (None, pad):
        loss = "which also ends every turn"
        then = "no end of a turn is ever learnt and generations may not end"
    else:
        loss = f"at which generation stops too, though a turn ends in {turn_end}"
        then = "only where a text itself holds that token is its label lost"
    return False, (
        f"The pad token is {pad}, {loss}: with a collator that finds padding by its id, as the "
        f"one of transformers for language modelling, {then}; TRL goes by position and is immune."
    )


def _check_places(said: _Said) -> tuple[bool, str]:
    n_rows = said.n_tokens if said.n_rows is None else said.n_rows
    size = min(said.n_tokens, n_rows)
    for key, tokens in {**{key: [pad] for key, pad in said.pads.items()}, **said.stops}.items():
        if max(tokens, default=-1) >= size:
            return False, (
                f"{key} is {max(tokens)}, but there are {said.n_tokens} tokens in the vocabulary "
                f"and {n_rows} rows in the embedding."
            )
    return True, f"Pad and stops are below {size}."


def _check_agreement(said: _Said) -> tuple[bool, str]:
    if len(set(said.pads.values())) > 1:
        listed = ", ".join(f"{token} in {key}" for key, token in said.pads.items())
        return False, f"The files name more than one pad token: {listed}."
    for key, tokens in said.stops.items():
        if missing := [token for token in tokens if token not in said.chief]:
            return False, f"{key} names {missing[0]}, at which generation does not stop."
    if not said.stops:
        return False, "Nothing names a token at which generation stops."
    return True, "All that is said of pad and stops agrees."


def _check_turn_end(
    stops: tuple[Token, ...], turn_end: Token | None, said: _Said
) -> tuple[bool, str]:
    if turn_end is None:
        why = "there is no chat template" if not said.template else "the chat template does not say"
        return True, f"What ends a turn is not known: {why}."
    if turn_end in stops:
        return True, f"The chat template ends a turn with {turn_end}, a stop."
    return False, (
        f"The chat template ends a turn with {turn_end}, which is no stop: the model will go on "
        "with the next turn by itself."
    )


def _check_advice(said: _Said, pad: Token | None) -> tuple[bool, str] | None:
    """Compare with the article's advice, if the vocabulary is the one that it is about."""
    ids = {text: token for token, text in said.texts.items()}
    advised, end = ids.get("<|vision_pad|>"), ids.get("<|im_end|>")
    if advised is None or end is None:
        return None
    follows = pad is not None and pad.id == advised and end in said.chief
    so = "as here" if follows else f"here the pad token is {pad}" if pad else "here none is set"
    return follows, (
        f"The article pads with {advised} <|vision_pad|> and stops at {end} <|im_end|>, {so}."
    )
