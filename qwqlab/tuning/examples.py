"""Training examples in Alpaca's format, and the lab's own skill: a shopping list becomes JSON.

An example is an instruction, an input where there is one, and an output. The skill is small enough
for a small model to learn in minutes, and plain to score: the answer is that object or it is not.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import files, paths
from ..errors import SettingError
from ..models import Repository, fetch_repository

# As Unsloth's notebooks have them, after Stanford's Alpaca; the end-of-turn token follows.
WITH_INPUT = """Below is an instruction that describes a task, paired with an input that provides \
further context. Write a response that appropriately completes the request.

### Instruction:
{instruction}

### Input:
{input}

### Response:
"""
WITHOUT_INPUT = """Below is an instruction that describes a task. Write a response that \
appropriately completes the request.

### Instruction:
{instruction}

### Response:
"""
ALPACA = Repository("yahma/alpaca-cleaned", ("alpaca_data_cleaned.json",), kind="dataset")
"""Stanford's Alpaca, cleaned by hand: 52,000 examples, CC BY 4.0; the article trains on it."""
FIELDS = ("instruction", "input", "output")


@dataclass(frozen=True)
class Example:
    """One example. input may be empty."""

    instruction: str
    input: str
    output: str

    @property
    def prompt(self) -> str:
        """Return what the model reads; its answer follows."""
        template = WITH_INPUT if self.input else WITHOUT_INPUT
        return template.format(instruction=self.instruction, input=self.input)


def find_examples(name: str | Path) -> list[Example]:
    """Return the examples of a set by its name, or of a file.

    "shopping" ships with the lab; "alpaca-cleaned" is fetched from the hub, once. Of the latter,
    an example without an answer is left out: it would teach to say nothing. Raise FetchError if it
    can't be fetched, SettingError as `read_examples` does.
    """
    if str(name) == "shopping":
        return read_examples(paths.data_dir() / "shopping" / "train.jsonl")
    if str(name) == "alpaca-cleaned":
        rows = json.loads(fetch_repository(ALPACA).paths[0].read_bytes())
        return [Example(**row) for row in rows if row["output"]]
    if not paths.from_user(name).is_file():
        raise SettingError(f"{name} is no file, and no set: these are shopping, alpaca-cleaned")
    return read_examples(paths.from_user(name))


def read_examples(path: str | Path) -> list[Example]:
    """Return the examples in a file of JSON lines, or of one JSON list; null is as nothing.

    Raise SettingError, naming the file and the line, for what is no example.
    """
    path = Path(path)
    text = files.read_text(path)
    if text.lstrip().startswith("["):
        rows = enumerate(_parse(text, str(path)), 1)
        found = [_read_example(row, f"{path}, example {n}") for n, row in rows]
    else:
        lines = enumerate(text.split("\n"), 1)  # a string may hold other ends of lines
        places = [(f"{path}, line {n}", line) for n, line in lines if line.strip()]
        found = [_read_example(_parse(line, where), where) for where, line in places]
    if not found:
        raise SettingError(f"{path} holds no examples")
    return found


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SettingError(f"{where}: not JSON ({str(error)[:80]})") from None


def _read_example(row: Any, where: str) -> Example:
    if not isinstance(row, dict):
        raise SettingError(f"{where}: not an object with {', '.join(FIELDS)}")
    # A table's export writes null where there is nothing.
    values = {name: "" if row.get(name) is None else row[name] for name in FIELDS}
    for name, value in values.items():
        if not isinstance(value, str):
            raise SettingError(f"{where}: {name} is {type(value).__name__}; it must be text")
        if name != "input" and not value.strip():
            raise SettingError(f"{where}: {name} is missing or empty")
    return Example(**values)


@dataclass(frozen=True)
class Score:
    """How an answer does: whether it is JSON at all, and whether it is what was asked for."""

    is_json: bool
    is_right: bool


def score(answer: str, example: Example) -> Score:
    """Score an answer; any text around the object counts against it.

    >>> example = Example("List what is bought as JSON.", "Two eggs, please.", '{"eggs": 2}')
    >>> score(' {"eggs": 2}', example), score('Sure! {"eggs": 2}', example).is_json
    (Score(is_json=True, is_right=True), False)
    """
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):  # a model may write thousands of brackets
        return Score(False, False)
    return Score(True, found == json.loads(example.output))
