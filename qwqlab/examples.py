"""Training examples in Alpaca's format: an instruction, an input where there is one, an output."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .errors import SettingError

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


def read_examples(path: str | Path) -> list[Example]:
    """Read a file of JSON lines, or one JSON list.

    SettingError names the file and the line that is no example.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise SettingError(f"{path} is larger than 1 GiB; give a smaller set")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise SettingError(f"{path} cannot be read as text in UTF-8: {error}") from error
    found = [read_example(row, where) for where, row in _rows(text, path)]
    if not found:
        raise SettingError(f"{path} holds no examples")
    return found


def _rows(text: str, path: Path) -> Iterable[tuple[str, Any]]:
    if text.lstrip().startswith("["):
        rows = _parse(text, str(path))
        yield from ((f"{path}, example {n}", row) for n, row in enumerate(rows, 1))
        return
    for n, line in enumerate(text.splitlines(), 1):
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
    for name in ("instruction", "output"):
        if not values[name].strip():
            raise SettingError(f"{where}: {name} is missing or empty")
    return Example(**values)
