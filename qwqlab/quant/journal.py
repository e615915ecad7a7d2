"""Results kept on the disk as they are found, so that work that was stopped or killed goes on."""

from __future__ import annotations

import contextlib
import hashlib
import json
from typing import Any

from .. import files, paths


class Journal:
    """Rows of results, a line of JSON each, in a file of models_dir() for each key.

    rows holds those of earlier runs, without a line that was cut short. key "" keeps nothing.
    """

    def __init__(self, folder: str, key: str) -> None:
        name = hashlib.sha256(key.encode()).hexdigest()[:32]
        self._path = paths.models_dir() / folder / f"{name}.jsonl" if key else None
        self.rows: list[dict[str, Any]] = []
        if self._path and self._path.is_file():
            for line in self._path.read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(ValueError):
                    self.rows.append(json.loads(line))

    def add(self, row: dict[str, Any]) -> None:
        """Write a row at once. Raise FileError if that fails; the rows before it are kept."""
        if self._path is None:
            return
        files.make_folder(self._path.parent)
        with files.writing(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(row))  # the line end closes a row that was cut short
