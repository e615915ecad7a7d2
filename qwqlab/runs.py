"""RunStore: every run with its settings, tokens, text and metrics, in one SQLite file.

A run is committed, and synced to the disk, before `add` returns. Several processes may write to
one store, and several threads may share one `RunStore`. Exports are in `export`.
"""

from __future__ import annotations

import sqlite3
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import export
from .errors import StoreError
from .records import Run
from .stored import COLUMNS, StoredRun, make_row, read_row, run_key, to_sql

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RunStore", "StoredRun", "run_key"]

VERSION = 1
# Marks the file as a store of runs ("QWQL"), so that no other program's database is altered.
APPLICATION_ID = 0x5157514C
BUSY_SECONDS = 60.0
_PAGE = 64

# Every step from an empty file to VERSION; a later version appends one.
_MIGRATIONS = (
    """
    CREATE TABLE runs (
        id INTEGER PRIMARY KEY,
        experiment TEXT NOT NULL, label TEXT NOT NULL, key TEXT NOT NULL,
        model TEXT NOT NULL, model_sha256 TEXT NOT NULL, build TEXT NOT NULL,
        settings TEXT NOT NULL, command TEXT NOT NULL, started_at TEXT NOT NULL,
        prompt TEXT NOT NULL, sampling TEXT NOT NULL, seed INTEGER NOT NULL,
        n_predict INTEGER NOT NULL, n_prompt INTEGER NOT NULL, text TEXT NOT NULL,
        stop TEXT NOT NULL, seconds REAL NOT NULL,
        tokens BLOB NOT NULL, ranks BLOB NOT NULL, escapes BLOB NOT NULL,
        valid_code INTEGER NOT NULL, why_invalid TEXT NOT NULL, loop INTEGER NOT NULL,
        loop_start INTEGER, loop_period INTEGER, loop_repeats REAL NOT NULL,
        runaway INTEGER NOT NULL, seq_rep_4 REAL NOT NULL, distinct_2 REAL NOT NULL,
        escape_rate REAL NOT NULL, n_tokens INTEGER NOT NULL,
        UNIQUE (experiment, label, key)
    )
    """,
)


class RunStore:
    """A store of runs in one file, made when it is not there; a context manager.

    Raises StoreError for a file that is not a store, is damaged, cannot be written, or comes from
    a newer version of the lab.

    Text that SQLite's tools could not show (a NUL character, half of a surrogate pair) is kept as
    a blob of UTF-8 with surrogates passed through, so every text comes back as it was.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.RLock()
        self._closed = False
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # As an absolute path, `:memory:` is a file like any other.
            self._connection = sqlite3.connect(
                self.path.absolute(),
                timeout=BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"{self.path} cannot be opened as a store of runs: {error}."
            ) from error
        self._connection.row_factory = sqlite3.Row
        try:
            with self._guard():
                self._prepare()
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
            self._connection.close()

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
            return None if row is None else read_row(row)

    def runs(
        self, *, experiment: str | None = None, label: str | None = None
    ) -> Iterator[StoredRun]:
        """The runs in the order in which they were added, read a page at a time."""
        where, values = _where(experiment, label)
        last = 0
        while True:
            with self._guard() as connection:
                rows = connection.execute(
                    f"SELECT * FROM runs WHERE {where} AND id > ? ORDER BY id LIMIT {_PAGE}",
                    [*values, last],
                ).fetchall()
                page = [read_row(row) for row in rows]
            yield from page
            if len(rows) < _PAGE:
                return
            last = rows[-1]["id"]

    def to_frame(self, *, experiment: str | None = None) -> pd.DataFrame:
        """A pandas DataFrame, one row a run, a column each for metrics and sampling numbers."""
        return export.make_frame(self.runs(experiment=experiment))

    def export_csv(self, path: str | Path, *, experiment: str | None = None) -> Path:
        """Write a CSV for spreadsheets (see `export.write_csv`); gives the path."""
        return export.write_csv(self.runs(experiment=experiment), self._check_target(path))

    def export_json(self, path: str | Path, *, experiment: str | None = None) -> Path:
        """Write every run whole, as a JSON list; gives the path."""
        return export.write_json(self.runs(experiment=experiment), self._check_target(path))

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
                yield self._connection
            except (sqlite3.Error, zlib.error, ValueError, TypeError, LookupError) as error:
                raise StoreError(f"{self.path} cannot be read or written: {error}.") from error

    def _prepare(self) -> None:
        """Check the file, and bring it to VERSION, in one transaction among processes."""
        connection = self._connection
        try:
            self._check(connection)
        except sqlite3.DatabaseError as error:
            if "not a database" not in str(error):
                raise
            raise self._no_store() from error
        self._use_wal()
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in _MIGRATIONS[self._check(connection) :]:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _check(self, connection: sqlite3.Connection) -> int:
        """The version of the store, 0 for an empty file."""
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        mark = connection.execute("PRAGMA application_id").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if mark != APPLICATION_ID and (mark or version or tables):
            raise self._no_store()
        if version > VERSION:
            raise StoreError(
                f"{self.path} is a store of version {version}, and this qwqlab reads up to "
                f"{VERSION}: upgrade qwqlab, or name another file."
            )
        return version

    def _no_store(self) -> StoreError:
        return StoreError(f"{self.path} is not a store of runs: move it away or name another file.")

    def _use_wal(self) -> None:
        # Two processes that switch a new file at once see "locked" without the busy time-out.
        patience = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > patience:
                    raise
                time.sleep(0.02)


def _where(experiment: str | None, label: str | None) -> tuple[str, list[Any]]:
    wanted = {"experiment": experiment, "label": label}
    given = {name: value for name, value in wanted.items() if value is not None}
    clauses = [f"{name} = ?" for name in given]
    return " AND ".join(["TRUE", *clauses]), [to_sql(value) for value in given.values()]
