"""RunStore: every run with its settings, tokens, text and metrics, in one SQLite file.

A run is committed, and synced to the disk, before `add` returns. Several processes may write to
one store, and several threads may share one `RunStore`. Exports are in `export`.
"""

from __future__ import annotations

import sqlite3
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import StoreError
from ..records import Run
from . import export
from .store_file import StoreFile
from .stored import COLUMNS, StoredRun, make_row, read_row, run_key, to_sql

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RunStore", "StoredRun", "run_key"]

_PAGE = 64


class RunStore:
    """A store of runs in one file, made when it is not there; a context manager.

    Raises StoreError for a file that is not a store, is damaged, or comes from a newer version of
    the lab. One that cannot be written is open to read; `add` raises StoreError then.

    Text that SQLite's tools could not show (a NUL character, half of a surrogate pair) is kept as
    a blob of UTF-8 with surrogates passed through, so every text comes back as it was.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.RLock()
        self._closed = False
        try:
            self._file = StoreFile(self.path)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"{self.path} cannot be opened as a store of runs: {error}."
            ) from error
        try:
            with self._guard():
                self._file.prepare()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> RunStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Everything added is in it already."""
        with self._lock:
            self._closed = True
            self._file.close()

    def add(
        self,
        run: Run,
        *,
        experiment: str,
        model: str,
        model_sha256: str,
        build: str,
        settings: Mapping[str, Any],
        command: str,
    ) -> bool:
        """Measure and keep a finished run, safe on the disk when this returns.

        Gives whether it is kept: not if it was stopped on request, nor if there is one with the
        same experiment, label and key.
        """
        if run.stop == "stopped":
            return False
        if self._file.read_only:
            raise StoreError(
                f"{self.path} cannot be written: it is open to read; copy it to a folder of yours."
            )
        values = make_row(
            run,
            experiment=experiment,
            model=model,
            model_sha256=model_sha256,
            build=build,
            settings=settings,
            command=command,
        )
        names = ", ".join(COLUMNS)
        marks = ", ".join("?" * len(COLUMNS))
        statement = f"INSERT OR IGNORE INTO runs ({names}) VALUES ({marks})"
        with self._guard() as connection:
            cursor = connection.execute(statement, [to_sql(values[name]) for name in COLUMNS])
            return cursor.rowcount == 1

    def get(self, key: str, *, experiment: str, label: str = "") -> StoredRun | None:
        """One run, or None."""
        where, values = _where(experiment, label)
        with self._guard() as connection:
            row = connection.execute(
                f"SELECT * FROM runs WHERE {where} AND key = ?", [*values, key]
            ).fetchone()
        return None if row is None else self._read(row)

    def runs(
        self,
        *,
        experiment: str | None = None,
        label: str | None = None,
        damaged: list[str] | None = None,
    ) -> Iterator[StoredRun]:
        """The runs in the order in which they were added, read a page at a time.

        A run that is damaged ends them with a StoreError; or, with a list, is left out of them,
        and its sentence appended to the list.
        """
        where, values = _where(experiment, label)
        last = 0
        while True:
            with self._guard() as connection:
                rows = connection.execute(
                    f"SELECT * FROM runs WHERE {where} AND id > ? ORDER BY id LIMIT {_PAGE}",
                    [*values, last],
                ).fetchall()
            for row in rows:
                try:
                    stored = self._read(row)
                except DamagedRunError as error:
                    if damaged is None:
                        raise
                    damaged.append(str(error))
                    continue
                yield stored
            if len(rows) < _PAGE:
                return
            last = rows[-1]["id"]

    def to_frame(self, *, experiment: str | None = None) -> pd.DataFrame:
        """A pandas DataFrame, one row a run, a column each for metrics and sampling numbers."""
        return export.make_frame(self.runs(experiment=experiment))

    def export_csv(
        self,
        path: str | Path,
        *,
        experiment: str | None = None,
        damaged: list[str] | None = None,
    ) -> Path:
        """Write a CSV for spreadsheets (see `export.write_csv`, and `runs` for damaged ones)."""
        runs = self.runs(experiment=experiment, damaged=damaged)
        return export.write_csv(runs, self._check_target(path))

    def export_json(
        self,
        path: str | Path,
        *,
        experiment: str | None = None,
        damaged: list[str] | None = None,
    ) -> Path:
        """Write every run whole, as a JSON list (see `runs` for damaged ones); gives the path."""
        runs = self.runs(experiment=experiment, damaged=damaged)
        return export.write_json(runs, self._check_target(path))

    def _check_target(self, path: str | Path) -> Path:
        if Path(path).resolve() == self.path.resolve():
            raise StoreError(f"{path} is the store itself; write the runs to another file.")
        return Path(path)

    @contextmanager
    def _guard(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._closed:
                raise StoreError(f"{self.path} is closed: open the store again.")
            try:
                yield self._file.connection
            except sqlite3.Error as error:
                remedy = "; make room on its disk, what it holds is kept" if _is_full(error) else ""
                raise StoreError(
                    f"{self.path} cannot be read or written: {error}{remedy}."
                ) from error

    def _read(self, row: sqlite3.Row) -> StoredRun:
        try:
            return read_row(row)
        except (zlib.error, ValueError, TypeError, LookupError) as error:
            raise DamagedRunError(
                f"{self.path} cannot be read: run {row['id']} is damaged ({error}); "
                "`qwqlab export` writes the others."
            ) from error


class DamagedRunError(StoreError):
    """A run of a store that does not come back; the others do."""


def _is_full(error: sqlite3.Error) -> bool:
    # Where the index of the log finds no room, SQLite calls that an error of the disk.
    return "disk is full" in str(error) or "disk I/O" in str(error)


def _where(experiment: str | None, label: str | None) -> tuple[str, list[Any]]:
    wanted = {"experiment": experiment, "label": label}
    given = {name: value for name, value in wanted.items() if value is not None}
    clauses = [f"{name} = ?" for name in given]
    return " AND ".join(["TRUE", *clauses]), [to_sql(value) for value in given.values()]
