"""The SQLite file of a store: opened, checked, brought up to date, or opened for reading alone."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

from ..errors import StoreError

VERSION = 1
# Marks the file as a store of runs ("QWQL"), so that no other program's database is altered.
APPLICATION_ID = 0x5157514C
BUSY_SECONDS = 60.0

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


class StoreFile:
    """The connection to a store's file, made where there is none.

    read_only is True for a file that is there and cannot be written, nor anything beside it.
    sqlite3.Error and OSError for what the system says, StoreError for what is no store.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self.read_only = path.is_file() and not (
            os.access(path, os.W_OK) and os.access(path.absolute().parent, os.W_OK)
        )
        if self.read_only:
            self.connection = self._open_to_read()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            # As an absolute path, `:memory:` is a file like any other.
            self.connection = _connect(path.absolute())
        self.connection.row_factory = sqlite3.Row

    def close(self) -> None:
        """Close the file, and remove the copy that it was read from, if there is one."""
        self.connection.close()
        if self._copy is not None:
            self._copy.cleanup()

    def prepare(self) -> None:
        """Check the file, and bring it to VERSION, in one transaction among processes."""
        connection = self.connection
        try:
            version = self._check()
        except sqlite3.DatabaseError as error:
            if "not a database" not in str(error):
                raise
            raise self._no_store() from error
        if self.read_only:
            if version < VERSION:
                raise self._no_store()
            return
        self._use_wal()
        connection.execute("PRAGMA synchronous = FULL")
        if version == VERSION:  # nothing to write, for which a full disk has no room
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in _MIGRATIONS[self._check() :]:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _open_to_read(self) -> sqlite3.Connection:
        name = f"file:{quote(str(self.path.absolute()))}?mode=ro"
        connection = _connect(name, uri=True)
        try:
            connection.execute("PRAGMA user_version")
            return connection
        except sqlite3.OperationalError:  # its log has no index, which can't be written here
            connection.close()
        log = self.path.with_name(f"{self.path.name}-wal")
        if not log.exists():  # so the file is whole, and no one writes to it
            return _connect(f"{name}&immutable=1", uri=True)
        self._copy = tempfile.TemporaryDirectory(prefix="qwqlab-")
        copy = Path(self._copy.name) / "runs.sqlite"
        shutil.copyfile(self.path, copy)
        shutil.copyfile(log, f"{copy}-wal")
        return _connect(copy)

    def _check(self) -> int:
        """The version of the store, 0 for an empty file."""
        version = int(self.connection.execute("PRAGMA user_version").fetchone()[0])
        mark = self.connection.execute("PRAGMA application_id").fetchone()[0]
        tables = self.connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
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
                self.connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > patience:
                    raise
                time.sleep(0.02)


def _connect(name: str | Path, uri: bool = False) -> sqlite3.Connection:
    return sqlite3.connect(
        name, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=uri
    )
