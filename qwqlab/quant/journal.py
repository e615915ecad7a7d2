"""Results kept on the disk as they are found, so that work that was stopped or killed goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from .. import files, paths


class Journal:
    """Rows of results, a line of JSON each, in a file of models_dir() for each key.

    rows holds those of earlier runs, without a line that was cut short. key None keeps nothing.
    """

    def __init__(self, folder: str, key: str | None) -> None:
        name = hashlib.sha256((key or "").encode()).hexdigest()[:32]
        self._path = None if key is None else paths.models_dir() / folder / f"{name}.jsonl"
        self._file: Any = None
        self.rows = tuple(self._read())

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    def add(self, row: dict[str, Any]) -> None:
        """Write a row at once. Raise FileError if that fails; the rows before it are kept."""
        if self._path is None:
            return
        line = json.dumps(row).encode() + b"\n"
        if self._file is None:
            files.make_folder(self._path.parent)
            line = b"\n" + line  # ends one that was cut short
        with files.writing(self._path):
            # Without a buffer: one that a full disk refused would be refused again when closed.
            self._file = self._file or self._path.open("ab", buffering=0)
            while line:
                line = line[self._file.write(line) :]

    def _read(self) -> Iterator[dict[str, Any]]:
        if self._path is None or not self._path.is_file():
            return
        for line in self._path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                yield row
