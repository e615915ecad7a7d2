"""Training examples in Alpaca's format: an instruction, an input where there is one, an output."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import files, hub_fetch, paths
from ..entries import Repository
from ..errors import SettingError

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
MOST_BYTES = 2**30
ALPACA = Repository("yahma/alpaca-cleaned", ("alpaca_data_cleaned.json",), kind="dataset")
"""Stanford's Alpaca, cleaned by hand: 52,000 examples, CC BY 4.0; the article trains on it."""
SETS = ("shopping", "alpaca-cleaned")
FIELDS = ("instruction", "input", "output")


@dataclass(frozen=True)
class Example:
    """One example. input may be empty."""

    instruction: str
    input: str
    output: str

    @property
    def prompt(self) -> str:
        """What the model reads; its answer follows."""
        template = WITH_INPUT if self.input else WITHOUT_INPUT
        return template.format(instruction=self.instruction, input=self.input)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return asdict(self)


def find_examples(name: str | Path) -> list[Example]:
    """A set by its name, or a file.

    "shopping" ships with the lab; "alpaca-cleaned" is fetched from the hub, once. Of the latter,
    an example without an answer is left out: it would teach to say nothing. FetchError where it
    can't be fetched, SettingError as `read_examples`.
    """
    if str(name) == "shopping":
        return read_examples(paths.data_dir() / "shopping" / "train.jsonl")
    if str(name) == "alpaca-cleaned":
        found = hub_fetch.find_fetched(ALPACA) or hub_fetch.fetch_repository(ALPACA)
        return read_examples(found.paths[0], leave_out=True)
    if not paths.from_user(name).is_file():
        raise SettingError(f"{name} is no file, and no set: these are {', '.join(SETS)}")
    return read_examples(paths.from_user(name))


def read_examples(path: str | Path, leave_out: bool = False) -> list[Example]:
    """Read a file of JSON lines, or one JSON list.

    leave_out: pass over examples without an output. SettingError names the file and the line that
    is no example.
    """
    path = Path(path)
    try:
        text = files.read_bytes(path, MOST_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise SettingError(f"{path} cannot be read as text in UTF-8: {error}") from error
    found = [
        read_example(row, where)
        for where, row in _rows(text, path)
        if not (leave_out and isinstance(row, dict) and row.get("output") == "")
    ]
    if not found:
        raise SettingError(f"{path} holds no examples")
    return found


def _rows(text: str, path: Path) -> Iterable[tuple[str, Any]]:
    if text.lstrip().startswith("["):
        rows = _parse(text, str(path))
        yield from ((f"{path}, example {n}", row) for n, row in enumerate(rows, 1))
        return
    for n, line in enumerate(text.split("\n"), 1):  # a string may hold other ends of lines
        if line.strip():
            yield f"{path}, line {n}", _parse(line, f"{path}, line {n}")


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SettingError(f"{where}: not JSON ({str(error)[:80]})") from None


def read_example(row: Any, where: str) -> Example:
    """One row of a data set; `where` is for the error's sentence."""
    if not isinstance(row, dict):
        raise SettingError(f"{where}: not an object with {', '.join(FIELDS)}")
    values = {name: row.get(name, "") for name in FIELDS}
    for name, value in values.items():
        if not isinstance(value, str):
            raise SettingError(f"{where}: {name} is {type(value).__name__}; it must be text")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise SettingError(f"{where}: {name} holds half of a surrogate pair") from None
    for name in ("instruction", "output"):
        if not values[name].strip():
            raise SettingError(f"{where}: {name} is missing or empty")
    return Example(**values)
