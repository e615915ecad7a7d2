"""Chat templates: the article's two, a model's own, and how one differs from another."""

from __future__ import annotations

import difflib
import json
import os
from pathlib import Path
from typing import Any

from .. import paths
from ..errors import ChatError
from . import gguf_file
from .rendering import LONGEST, Conversation

KNOWN = ("with-think", "without-think")
DIFF_LINES, DIFF_WIDTH = 40, 400
COMPARED = 1000  # lines; the time that a diff takes may grow with their square


def template(name: str) -> str:
    """One of the article's two templates, by its name in KNOWN.

    They are the same but for the last line: "with-think" ends the prompt in `<think>\\n`.
    """
    if name not in KNOWN:
        raise ChatError(f"{name!r} is not a template of the lab; give {' or '.join(KNOWN)}")
    path = paths.data_dir() / "templates" / f"{name}.jinja"
    return path.read_text(encoding="utf-8")


def read_template(source: str | os.PathLike[str]) -> str:
    """A template by its name in KNOWN, from a .jinja file, or from a GGUF's metadata. Untrusted.

    Raises ChatError where there is none, and ModelFileError for a file that is no sound GGUF.
    """
    text = os.fspath(source)
    if text in KNOWN:
        return template(text)
    path = paths.from_user(text)
    if path.suffix == ".gguf":
        found = gguf_file.inspect(path).chat_template
        if found is None:
            raise ChatError(f"{path} brings no chat template; name one: {', '.join(KNOWN)}")
        return found
    if path.suffix != ".jinja":
        raise ChatError(f"{text!r} is none of {', '.join(KNOWN)}, a .jinja or a .gguf file")
    return _read(path, "template", LONGEST)


def read_conversation(
    messages: str | os.PathLike[str],
    tools: str | os.PathLike[str] | None = None,
    add_generation_prompt: bool = True,
) -> Conversation:
    """A conversation from a JSON file of messages and one of tools, each a list of objects.

    Raises ChatError, with the file's name, where one is not.
    """
    return Conversation(
        _read_json(messages, "messages"),
        None if tools is None else _read_json(tools, "tools"),
        add_generation_prompt,
    )


def _read_json(path: str | os.PathLike[str], what: str) -> list[dict[str, Any]]:
    text = _read(Path(path), f"{what} file", 16_000_000)
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ChatError(f"the {what} file {path} is not JSON: {error}") from None
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise ChatError(f"the {what} file {path} is not a JSON list of objects; give one")
    return values


def _read(path: Path, what: str, most: int) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(most + 1)
    except OSError as error:
        raise ChatError(f"the {what} {path} cannot be read: {error.strerror}") from None
    if len(raw) > most:
        raise ChatError(f"the {what} {path} is longer than {most:,} bytes; give a shorter one")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ChatError(f"the {what} {path} is not text in UTF-8; give one that is") from None


def split_tags(source: str) -> list[str]:
    """A template, a tag a line, without the white space that its tags swallow anyway.

    >>> split_tags("{%- if a %}\\n    {{- b }}\\n{%- endif %}\\n")
    ['{%- if a %}', '{{- b }}', '{%- endif %}']
    """
    for mark in ("{%-", "{{-"):
        *before, last = source.removesuffix("\n").split(mark)
        source = mark.join([*(text.rstrip() for text in before), last])
    for mark in ("{%", "{{"):
        source = source.replace(mark, f"\n{mark}")
    return source.removeprefix("\n").split("\n")


def identify(source: str) -> str | None:
    """The name in KNOWN of the template that this one equals, white space between tags aside."""
    tags = split_tags(source)
    return next((name for name in KNOWN if split_tags(template(name)) == tags), None)


def diff(source: str, name: str = "with-think") -> list[str]:
    """How a template differs from a known one: lines as `diff -u` writes them, none where equal.

    At most DIFF_LINES of them, cut at DIFF_WIDTH characters; a single line that says so for a
    template of more than COMPARED tags.
    """
    mine, known = split_tags(source), split_tags(template(name))
    if len(mine) > COMPARED:
        return [f"{len(mine):,} tags against {len(known)}: too long to compare"]
    found = difflib.unified_diff(known, mine, name, "this one", lineterm="", n=1)
    lines = [line[:DIFF_WIDTH] for line in found]
    if len(lines) > DIFF_LINES:
        lines = [*lines[:DIFF_LINES], f"... and {len(lines) - DIFF_LINES} lines more"]
    return lines


def describe(source: str) -> str:
    """A template in one sentence: which known one it equals, or how far it is from them.

    >>> describe(template("without-think"))
    'It equals without-think.'
    """
    name = identify(source)
    if name is not None:
        return f"It equals {name}."
    n_tags, think = len(split_tags(source)), "<think>" in source
    return (
        f"It equals neither {' nor '.join(KNOWN)}: {len(source):,} characters in {n_tags:,} tags, "
        f"and it {'names' if think else 'does not name'} <think>."
    )
