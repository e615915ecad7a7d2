"""RunStore: every run with its settings, tokens, text and metrics, in one SQLite file.

A run is known by its experiment, its label and a key: a hash of all that decides its tokens. So a
sweep asks the store for each run before it computes it, and the same run is never kept twice.

The file is one file: it uses SQLite's rollback journal, not its write-ahead log, so what you copy
or hand in holds every run, and it works on network folders and on read-only ones. Several
processes may write to one store, and several threads may share one `RunStore`.
"""

from __future__ import annotations

import csv
import hashlib
import json
import sqlite3
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import files
from ..errors import StoreError
from ..sampling import Request, Run, Sampling
from .metrics import RunMetrics, measure, remember

if TYPE_CHECKING:
    import pandas as pd

VERSION = 1
# Marks the file as a store of runs ("QWQL"), so that no other program's database is altered.
APPLICATION_ID = 0x5157514C
BUSY_SECONDS = 60.0
_PAGE = 64
_SCHEMA = """
    CREATE TABLE IF NOT EXISTS runs (
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
"""
_METRICS = tuple(field.name for field in fields(RunMetrics))
_RUN = ("n_prompt", "text", "stop", "seconds")
_SEQUENCES = ("tokens", "ranks", "escapes")
COLUMNS = (
    *("experiment", "label", "key", "model", "model_sha256", "build", "settings", "command"),
    *("started_at", "prompt", "sampling", "seed", "n_predict", *_RUN, *_SEQUENCES, *_METRICS),
)
# A spreadsheet runs a cell that begins so as a formula, and what a model wrote is untrusted.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def run_key(request: Request, *, model_sha256: str, build: str, settings: Mapping[str, Any]) -> str:
    """Return a hash of all that decides a run's tokens: model, build, engine settings, request.

    The request's label does not count; 1 and 1.0 are the same number. It has 64 hexadecimal
    digits, the same in every process and on every machine.
    """
    values = request.to_dict()
    del values["label"]
    parts = {"model": model_sha256, "build": build, "settings": dict(settings), "request": values}
    text = json.dumps(_normalise(parts), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _normalise(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _normalise(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_normalise(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@dataclass(frozen=True)
class StoredRun:
    """A run as the store holds it, with what it was run on.

    started_at is UTC in ISO 8601; settings are the engine's; command reproduces the run.
    """

    run: Run
    experiment: str
    key: str
    model: str
    model_sha256: str
    build: str
    settings: dict[str, Any]
    command: str
    started_at: str
    metrics: RunMetrics

    @property
    def label(self) -> str:
        """The label of the run's request."""
        return self.run.request.label

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**own, "run": self.run.to_dict(), "metrics": self.metrics.to_dict()}


class DamagedRunError(StoreError):
    """One run of a store that can't be read back; the others can."""


class RunStore:
    """A store of runs in one file, created if there is none; a context manager.

    Raise StoreError for a file that is not a store, is damaged, or was written by a newer version
    of the lab. A file that can't be written is open to read; then `add` raises StoreError.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.RLock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                self.path.absolute(),  # so that `:memory:` is a file like any other
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
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        """Create the table in an empty file, and refuse a file that is something else."""
        with self._guard() as connection:
            connection.execute("PRAGMA synchronous = EXTRA")  # a run survives a power cut too
            mark = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if mark != APPLICATION_ID and (mark or version or tables):
                raise self._no_store()
            if version > VERSION:
                raise StoreError(
                    f"{self.path} is a store of version {version}, and this qwqlab reads up to "
                    f"{VERSION}: upgrade qwqlab, or name another file."
                )
            if version < VERSION:
                with connection:  # one transaction, for which a second process waits
                    connection.execute("BEGIN IMMEDIATE")
                    connection.execute(_SCHEMA)
                    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                    connection.execute(f"PRAGMA user_version = {VERSION}")

    def __enter__(self) -> RunStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Everything added is in it already."""
        with self._lock:
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

        Return whether it is kept: a run that was stopped on request is not, nor a second one with
        the same experiment, label and key.
        """
        if run.stop == "stopped":
            return False
        request = run.request
        started = datetime.now(timezone.utc) - timedelta(seconds=run.seconds)
        values = {
            "experiment": experiment,
            "label": request.label,
            "key": run_key(request, model_sha256=model_sha256, build=build, settings=settings),
            "model": model,
            "model_sha256": model_sha256,
            "build": build,
            "settings": json.dumps(dict(settings), sort_keys=True, default=str),
            "command": command,
            "started_at": started.isoformat(timespec="milliseconds"),
            "prompt": request.prompt,
            "sampling": json.dumps(request.sampling.to_dict(), sort_keys=True),
            "seed": request.seed,
            "n_predict": request.n_predict,
            **{name: getattr(run, name) for name in _RUN},
            **{name: _pack(getattr(run, name)) for name in _SEQUENCES},
            **measure(run).to_dict(),
        }
        names, marks = ", ".join(COLUMNS), ", ".join("?" * len(COLUMNS))
        statement = f"INSERT OR IGNORE INTO runs ({names}) VALUES ({marks})"
        with self._guard() as connection:
            cursor = connection.execute(statement, [_to_sql(values[name]) for name in COLUMNS])
            return cursor.rowcount == 1

    def get(self, key: str, *, experiment: str, label: str = "") -> StoredRun | None:
        """Return one run, or None."""
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
        """Yield the runs in the order in which they were added, read a page at a time.

        Raise StoreError at a run that is damaged; or, given a list, leave the run out and append
        the error's sentence to the list.
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
        """Return a pandas DataFrame: a row a run, a column each for metrics and settings."""
        import pandas as pd

        return pd.DataFrame([_flatten(stored) for stored in self.runs(experiment=experiment)])

    def export_csv(self, path: str | Path, *, damaged: list[str] | None = None) -> Path:
        """Write a row a run in UTF-8, whole or not at all, and return the path.

        It is for reading in a spreadsheet, not for exact copies: a text that would be a formula
        gets a ' in front. `damaged` is that of `runs`.
        """
        with self._replacing(path) as out:
            writer: Any = None
            for stored in self.runs(damaged=damaged):
                row = {name: _disarm(value) for name, value in _flatten(stored).items()}
                if writer is None:
                    writer = csv.DictWriter(out, fieldnames=list(row), extrasaction="ignore")
                    writer.writeheader()
                writer.writerow(row)
        return Path(path)

    def export_json(self, path: str | Path, *, damaged: list[str] | None = None) -> Path:
        """Write every run whole, as a JSON list, and return the path. `damaged`: see `runs`."""
        with self._replacing(path) as out:
            separator = "[\n"
            for stored in self.runs(damaged=damaged):
                out.write(separator + json.dumps(stored.to_dict()))
                separator = ",\n"
            out.write("[]\n" if separator == "[\n" else "\n]\n")
        return Path(path)

    @contextmanager
    def _replacing(self, path: str | Path) -> Iterator[Any]:
        """Yield a text file that takes its place when it is whole."""
        if Path(path).resolve() == self.path.resolve():
            raise StoreError(f"{path} is the store itself; write the runs to another file.")
        with files.replacing_text(Path(path), "backslashreplace") as out:
            yield out

    @contextmanager
    def _guard(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection to one thread at a time; raise StoreError for SQLite's errors."""
        with self._lock:
            try:
                yield self._connection
            except sqlite3.Error as error:
                raise self._explain(str(error)) from error

    def _explain(self, error: str) -> StoreError:
        if "not a database" in error:
            return self._no_store()
        if "readonly" in error:
            return StoreError(
                f"{self.path} cannot be written: it is open to read; copy it to a folder of yours."
            )
        remedy = "; make room on its disk, what it holds is kept" if "full" in error else ""
        return StoreError(f"{self.path} cannot be read or written: {error}{remedy}.")

    def _no_store(self) -> StoreError:
        return StoreError(f"{self.path} is not a store of runs: move it away or name another file.")

    def _read(self, row: sqlite3.Row) -> StoredRun:
        try:
            return _read_row(row)
        except (zlib.error, ValueError, TypeError, LookupError) as error:
            raise DamagedRunError(
                f"{self.path} cannot be read: run {row['id']} is damaged ({error}); "
                "`qwqlab export` writes the others."
            ) from error


def _where(experiment: str | None, label: str | None) -> tuple[str, list[Any]]:
    wanted = {"experiment": experiment, "label": label}
    given = {name: value for name, value in wanted.items() if value is not None}
    clauses = [f"{name} = ?" for name in given]
    return " AND ".join(["TRUE", *clauses]), [_to_sql(value) for value in given.values()]


def _read_row(row: sqlite3.Row) -> StoredRun:
    """Return the run that `RunStore.add` took apart, and have its metrics remembered."""
    values = {name: _from_sql(row[name]) for name in COLUMNS if name not in _SEQUENCES}
    request = Request(
        prompt=values["prompt"],
        sampling=Sampling.from_dict(json.loads(values["sampling"])),
        seed=values["seed"],
        n_predict=values["n_predict"],
        label=values["label"],
    )
    sequences: dict[str, Any] = {name: _unpack(row[name]) for name in _SEQUENCES}
    run = Run(request=request, **{name: values[name] for name in _RUN}, **sequences)
    flags = {name: bool(values[name]) for name in ("valid_code", "loop", "runaway")}
    metrics = RunMetrics(**{**{name: values[name] for name in _METRICS}, **flags})
    remember(run, metrics)
    names = ("experiment", "key", "model", "model_sha256", "build", "command", "started_at")
    return StoredRun(
        run=run,
        settings=json.loads(values["settings"]),
        metrics=metrics,
        **{name: values[name] for name in names},
    )


def _to_sql(value: Any) -> Any:
    """Return a value for SQLite: text that can't be UTF-8, such as raw bytes, becomes a blob."""
    if not isinstance(value, str):
        return value
    raw = value.encode("utf-8", "surrogatepass")
    return value if raw == value.encode("utf-8", "replace") else raw


def _from_sql(value: Any) -> Any:
    return value.decode("utf-8", "surrogatepass") if isinstance(value, bytes) else value


def _pack(values: tuple[int, ...]) -> bytes:
    return zlib.compress(np.asarray(values, dtype="<i4").tobytes())


def _unpack(blob: bytes) -> tuple[int, ...]:
    return tuple(np.frombuffer(zlib.decompress(blob), dtype="<i4").tolist())


def _flatten(stored: StoredRun) -> dict[str, Any]:
    """Return one run as a flat row: what was asked, each setting, each metric, the text.

    Lists (the samplers) are joined by ";"; token ids, ranks and escapes stay in the store.
    """
    request, run = stored.run.request, stored.run
    sampling = {
        name: ";".join(map(str, value)) if isinstance(value, (list, tuple)) else value
        for name, value in request.sampling.to_dict().items()
    }
    return {
        "experiment": stored.experiment,
        "label": stored.label,
        "key": stored.key,
        "model": stored.model,
        "model_sha256": stored.model_sha256,
        "build": stored.build,
        "settings": json.dumps(stored.settings, sort_keys=True),
        "started_at": stored.started_at,
        "seed": request.seed,
        "n_predict": request.n_predict,
        **sampling,
        "n_prompt": run.n_prompt,
        "stop": run.stop,
        "seconds": run.seconds,
        "escapes": len(run.escapes),
        **stored.metrics.to_dict(),
        "command": stored.command,
        "prompt": request.prompt,
        "text": run.text,
    }


def _disarm(value: Any) -> Any:
    is_formula = isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA_STARTS)
    return f"'{value}" if is_formula else value
