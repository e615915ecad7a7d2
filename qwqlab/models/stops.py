"""Which tokens pad and which stop, and whether a model fine-tuned with them learns to stop.

The article: pad with <|vision_pad|> and never with a token that ends a turn, or generations go on
for ever. It matters where a collator finds the padding by its id: DataCollatorForLanguageModeling
of transformers takes every label that equals the pad token out of the loss, real ends included.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from .. import fetch, paths
from . import qwq_vocab
from .gguf_cursor import show
from .stop_files import Said, find_turn_end, read_folder, read_gguf

CHIEF = ("llama.cpp", "generation_config.json eos_token_id")


@dataclass(frozen=True)
class Token:
    """A token's id and its text, None where nothing says it."""

    id: int
    text: str | None

    def __str__(self) -> str:
        return f"{self.id}" if self.text is None else f"{self.id} {show(self.text)}"


@dataclass(frozen=True)
class Finding:
    """One thing looked at, whether it is as it should be, and a sentence on it."""

    name: str
    ok: bool
    text: str


@dataclass(frozen=True)
class StopCheck:
    """What a model says of padding and of stopping.

    pad:       what fills up a batch; None if unsaid.
    stops:     every token that ends a generation.
    turn_end:  what the chat template writes after a message; None if that is not plain.
    n_tokens, n_rows: size of the vocabulary, and rows of the embedding; None if unsaid.
    """

    source: str
    pad: Token | None
    stops: tuple[Token, ...]
    turn_end: Token | None
    n_tokens: int | None
    n_rows: int | None
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether every finding is as it should be."""
        return all(finding.ok for finding in self.findings)

    def show(self) -> str:
        """The check for a person, a line each."""
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
        """As JSON-ready values."""
        return {**asdict(self), "ok": self.ok}


def check_stops(source: str | os.PathLike[str]) -> StopCheck:
    """Look through a model's folder, a GGUF, or a name that `fetch.model_path` knows.

    Raises ModelFileError where nothing can be read, FetchError for a name that is not here.

    >>> check_stops("smollm2-135m").pad, check_stops("qwq-32b").ok
    (Token(id=2, text='<|im_end|>'), True)
    """
    path = paths.from_user(source)
    if os.fspath(source) == qwq_vocab.NAME and not path.exists():
        path = qwq_vocab.build()
    path = path if path.is_dir() else fetch.model_path(source)
    said = read_folder(path) if path.is_dir() else read_gguf(path)
    return judge(said, str(path))


def judge(said: Said, source: str) -> StopCheck:
    """The check of what was read."""
    pad = _name(said, next(iter(said.pads.values()), None))
    # What generate() and llama.cpp go by; the others only where neither is said.
    chief = [key for key in CHIEF if key in said.stops] or list(said.stops)[-1:]
    stops = tuple(
        Token(each, said.texts.get(each))
        for each in dict.fromkeys(each for key in chief for each in said.stops[key])
    )
    text = find_turn_end(said)
    turn_end = _name(said, said.ids.get(text)) if text is not None else None
    findings = [
        _check_pad(pad, stops, turn_end),
        _check_places(said),
        _check_agreement(said),
        _check_turn_end(stops, turn_end, said),
    ]
    advice = _check_advice(said, pad, stops)
    findings += [advice] if advice else []
    if "llama.cpp" in said.stops:
        others = [str(stop) for stop in stops if stop.text != said.eos_text]
        text = f"llama.cpp stops at {len(others)} tokens more for their texts: {', '.join(others)}."
        findings.append(Finding("stops by their texts", True, text))
    findings += [Finding("value", False, problem) for problem in said.problems]
    return StopCheck(source, pad, stops, turn_end, said.n_tokens, said.n_rows, tuple(findings))


def _name(said: Said, token: int | None) -> Token | None:
    return None if token is None else Token(token, said.texts.get(token))


def _check_pad(pad: Token | None, stops: tuple[Token, ...], turn_end: Token | None) -> Finding:
    name = "pad is no stop"
    if pad is None:
        return Finding(
            name, False, "No pad token is set; trainers then pad with eos, which is a stop."
        )
    if pad not in stops:
        return Finding(name, True, f"The pad token {pad} is not one at which generation stops.")
    if turn_end in (None, pad):
        loss = "which also ends every turn"
        then = "no end of a turn is ever learnt and generations may not end"
    else:
        loss = f"at which generation stops too, though a turn ends in {turn_end}"
        then = "only where a text itself holds that token is its label lost"
    return Finding(
        name,
        False,
        f"The pad token is {pad}, {loss}: with a collator that finds padding by its id, as the "
        f"one of transformers for language modelling, {then}; TRL goes by position and is immune.",
    )


def _check_places(said: Said) -> Finding:
    name = "ids are in the vocabulary"
    bounds = [n for n in (said.n_tokens, said.n_rows) if n is not None]
    wanted = {**{key: (token,) for key, token in said.pads.items()}, **said.stops}
    if not bounds:
        return Finding(name, False, "Nothing says how large the vocabulary is.")
    for what, bound in (
        ("tokens in the vocabulary", said.n_tokens),
        ("rows in the embedding", said.n_rows),
    ):
        for key, tokens in wanted.items():
            beyond = [token for token in tokens if bound is not None and token >= bound]
            if beyond:
                return Finding(name, False, f"{key} is {beyond[0]}, but there are {bound} {what}.")
    return Finding(name, True, f"Pad and stops are below {min(bounds)}.")


def _check_agreement(said: Said) -> Finding:
    name = "files agree"
    if len(set(said.pads.values())) > 1:
        listed = ", ".join(f"{token} in {key}" for key, token in said.pads.items())
        return Finding(name, False, f"The files name more than one pad token: {listed}.")
    own = {key: tokens for key, tokens in said.stops.items() if "eos_token" in key}
    chief = next((said.stops[key] for key in CHIEF if key in said.stops), None)
    for key, tokens in own.items():
        missing = [token for token in tokens if chief is not None and token not in chief]
        if missing:
            return Finding(
                name, False, f"{key} names {missing[0]}, at which generation does not stop."
            )
    if not said.stops:
        return Finding(name, False, "Nothing names a token at which generation stops.")
    return Finding(name, True, "All that is said of pad and stops agrees.")


def _check_turn_end(stops: tuple[Token, ...], turn_end: Token | None, said: Said) -> Finding:
    name = "turns end in a stop"
    if turn_end is None:
        why = "there is no chat template" if not said.template else "the chat template does not say"
        return Finding(name, True, f"What ends a turn is not known: {why}.")
    if turn_end in stops:
        return Finding(name, True, f"The chat template ends a turn with {turn_end}, a stop.")
    return Finding(
        name,
        False,
        f"The chat template ends a turn with {turn_end}, which is no stop: the model will go on "
        "with the next turn by itself.",
    )


def _check_advice(said: Said, pad: Token | None, stops: tuple[Token, ...]) -> Finding | None:
    """The article's advice, for the vocabulary that it is about."""
    advised, end = said.ids.get("<|vision_pad|>"), said.ids.get("<|im_end|>")
    if advised is None or end is None:
        return None
    follows = pad is not None and pad.id == advised and end in [stop.id for stop in stops]
    so = "as here" if follows else f"here the pad token is {pad}" if pad else "here none is set"
    return Finding(
        "the article's advice",
        follows,
        f"The article pads with {advised} <|vision_pad|> and stops at {end} <|im_end|>, {so}.",
    )
