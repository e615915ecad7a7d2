"""RunStore: every run with its settings, tokens, text and metrics, in one SQLite file.

A run is known by its experiment, its label and a key: a hash of all that decides its tokens. So a
sweep asks the store for each run before it computes it, and the same run is never kept twice.

The file is one file: it uses SQLite's rollback journal, not its write-ahead log, so what you copy
or hand in holds every run, and it works on network folders and on read-only ones. Several
processes may write to one store, and several threads may share one `RunStore`.

A store may come from anyone, and a disk may turn a bit. Each run has a checksum, and what is read
must have the types of its fields: a run that fails is damaged, and the others are read.
"""

from __future__ import annotations

import csv
import hashlib
import json
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime, timedelta, timezone
from itertools import chain
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

from .. import files
from ..errors import StoreError, first_lines
from ..sampling import Request, Run
from .metrics import RunMetrics, measure, remember

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

VERSION = 4
# Their runs are counted anew, since they were counted by other rules; those of version 2 have no
# checksum. The first run that is added makes it VERSION.
OLD_VERSIONS = (2, 3)
# Marks the file as a store of runs ("QWQL"), so that no other program's database is altered.
APPLICATION_ID = 0x5157514C
BUSY_SECONDS = 60.0
MOST_BYTES = 1 << 25  # of a row; a run of a million tokens has half of it
# `run`, `metrics` and `source` (what the run was run on, when, and a checksum) are JSON.
_TABLE = (
    "CREATE TABLE runs ( id INTEGER PRIMARY KEY, "
    "experiment TEXT NOT NULL, label TEXT NOT NULL, key TEXT NOT NULL, "
    "run TEXT NOT NULL, metrics TEXT NOT NULL, source TEXT NOT NULL, "
    "UNIQUE (experiment, label, key) )"
)
# What SQLite raises for a file that is locked, closed or gone.
_UNDAMAGED = (sqlite3.OperationalError, sqlite3.ProgrammingError)
# A spreadsheet runs a cell that begins so as a formula, and what a model wrote is untrusted.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def run_key(request: Request, *, model_sha256: str, build: str, settings: Mapping[str, Any]) -> str:
    """Return a hash of all that decides a run's tokens: model, build, engine settings, request.

    The request's label does not count. It has 64 hexadecimal digits, the same in every process and
    on every machine.
    """
    values = request.to_dict()
    del values["label"]
    parts = {"model": model_sha256, "build": build, "settings": dict(settings), "request": values}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


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


class RunStore:
    """A store of runs in one file, created if there is none; a context manager.

    Raise StoreError for a file that is not a store, is damaged, or was written by another version
    of the lab. A file that can't be written is open to read; then `add` raises StoreError.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
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
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        """Create the table in an empty file, and refuse a file that is something else."""
        with self._guard() as connection:
            if sys.version_info >= (3, 11):
                connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_BYTES)
            connection.execute("PRAGMA synchronous = EXTRA")  # a run survives a power cut too
            mark = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            tables = connection.execute("SELECT sql FROM sqlite_master WHERE sql != ''").fetchall()
            if mark != APPLICATION_ID and (mark or version or tables):
                raise self._no_store()
            if mark and version not in (*OLD_VERSIONS, VERSION):
                raise StoreError(
                    f"{self.path} is a store of version {version}, and this qwqlab reads version "
                    f"{VERSION}: move it away, name another file, or use the other qwqlab."
                )
            connection.text_factory = bytes.decode  # what is no UTF-8 is damage to one run
            # A view, a trigger or a column that is computed could run for ever.
            if mark and [" ".join(sql.split()) for (sql,) in tables] != [_TABLE]:
                raise self._no_store()
            if not mark:
                with connection:  # one transaction, for which a second process waits
                    connection.execute("BEGIN IMMEDIATE")
                    connection.execute(_TABLE.replace("TABLE", "TABLE IF NOT EXISTS", 1))
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
        key = run_key(run.request, model_sha256=model_sha256, build=build, settings=settings)
        started = datetime.now(timezone.utc) - timedelta(seconds=run.seconds)
        source = {
            "model": model,
            "model_sha256": model_sha256,
            "build": build,
            "settings": dict(settings),
            "command": command,
            "started_at": started.isoformat(timespec="milliseconds"),
        }
        row = [experiment, run.request.label, key]
        row += [json.dumps(part) for part in (run.to_dict(), measure(run).to_dict())]
        source["checksum"] = _checksum(*row, source)
        with self._guard() as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(f"PRAGMA user_version = {VERSION}")
            cursor = connection.execute(
                "INSERT INTO runs (experiment, label, key, run, metrics, source) "
                "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (experiment, label, key) DO NOTHING",
                (*row, json.dumps(source)),
            )
            return cursor.rowcount == 1

    def get(self, key: str, *, experiment: str, label: str) -> StoredRun | None:
        """Return one run, or None."""
        where = "experiment = ? AND label = ? AND key = ?"
        return next(self._read(_keep, where, experiment, label, key), None)

    def runs(self, *, damaged: list[str] | None = None) -> Iterator[StoredRun]:
        """Yield the runs in the order in which they were added, one at a time in memory.

        Raise StoreError at a run that is damaged; or, given a list, leave the run out and append
        the error's sentence to the list.
        """
        return self._read(_keep, damaged=damaged)

    def _read(
        self,
        form: Callable[[StoredRun], T],
        where: str = "TRUE",
        *values: str,
        damaged: list[str] | None = None,
    ) -> Iterator[T]:
        """Yield what `form` makes of each run; a run of which it can make nothing is damaged."""
        with self._guard() as connection:
            select = f"SELECT id FROM runs WHERE {where} ORDER BY id"
            places = [place for (place,) in connection.execute(select, values)]
        columns = ("experiment", "label", "key", "run", "metrics", "source")
        select = f"SELECT {', '.join(columns)} FROM runs WHERE id = ?"
        for place in places:
            try:
                with self._guard() as connection:
                    row = connection.execute(select, (place,)).fetchone()
                formed = form(_read_row(*row))
            except Exception as error:  # whoever wrote the row may have put anything there
                if isinstance(error.__cause__, _UNDAMAGED):
                    raise
                why = ascii(first_lines(error.__cause__ or error))[1:-1]
                sentence = f"{self.path} cannot be read: run {place} is damaged ({why})"
                if damaged is None:
                    raise StoreError(f"{sentence}; `qwqlab export` writes the others.") from error
                damaged.append(sentence)
            else:
                yield formed

    def to_frame(self) -> pd.DataFrame:
        """Return a pandas DataFrame: a row a run, a column each for metrics and settings."""
        import pandas as pd

        return pd.DataFrame(self._read(_flatten))

    def export_csv(self, path: str | Path, *, damaged: list[str] | None = None) -> Path:
        """Write a row a run in UTF-8, whole or not at all, and return the path.

        It is for reading in a spreadsheet, not for exact copies: a text that would be a formula
        gets a ' in front. `damaged` is that of `runs`.
        """
        rows = self._read(_flatten, damaged=damaged)
        with self._replacing(path) as out:
            first = next(rows, {})
            writer = csv.DictWriter(out, list(first))
            writer.writeheader()
            for row in chain([first] if first else [], rows):
                writer.writerow({name: _disarm(row[name]) for name in row})
        return Path(path)

    def export_json(self, path: str | Path, *, damaged: list[str] | None = None) -> Path:
        """Write every run whole, as a JSON list, and return the path. `damaged`: see `runs`."""
        texts = self._read(lambda stored: json.dumps(stored.to_dict()), damaged=damaged)
        with self._replacing(path) as out:
            out.write("[")
            for place, text in enumerate(texts):
                out.write(f", {text}" if place else text)
            out.write("]")
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
            except (sqlite3.Error, UnicodeDecodeError) as error:  # SQLite quotes what is damaged
                raise self._explain(str(error).rstrip(".")) from error

    def _explain(self, error: str) -> StoreError:
        if "not a database" in error:
            return self._no_store()
        if "readonly" in error:
            return StoreError(
                f"{self.path} cannot be written: it is open to read; copy it to a folder of yours, "
                "and the file with -journal behind its name if there is one."
            )
        remedy = "; make room on its disk, what it holds is kept" if "full" in error else ""
        return StoreError(f"{self.path} cannot be read or written: {error}{remedy}.")

    def _no_store(self) -> StoreError:
        return StoreError(f"{self.path} is not a store of runs: move it away or name another file.")


def _checksum(*columns: object) -> str:
    """Return a hash of all that a row holds, but for this."""
    return hashlib.sha256(json.dumps(columns).encode()).hexdigest()


def _read_row(
    experiment: str, label: str, key: str, run: str, metrics: str, source: str
) -> StoredRun:
    """Return the run that `RunStore.add` took apart, and have its metrics remembered.

    Raise one of many errors for a row that it did not write so.
    """
    if sum(map(len, (run, metrics, source))) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
    about = json.loads(source)
    checksum = about.pop("checksum", None)
    if checksum is not None and checksum != _checksum(experiment, label, key, run, metrics, about):
        raise ValueError("its checksum differs")
    found = Run.from_dict(json.loads(run))
    _check_types(found.request, found)
    counted = json.loads(metrics)
    known = checksum is not None and counted.keys() == RunMetrics.__dataclass_fields__.keys()
    measured = RunMetrics(**counted) if known else measure(found)
    stored = StoredRun(run=found, experiment=experiment, key=key, metrics=measured, **about)
    _check_types(measured, stored)
    remember(found, measured)
    return stored


def _check_types(*parts: object) -> None:
    """Raise TypeError for a dataclass of which a field does not hold what it should."""
    for part in parts:
        for name, hint in get_type_hints(type(part)).items():
            if not _holds(getattr(part, name), hint):
                raise TypeError(f"its {name} is no {hint}")


def _holds(value: object, hint: Any) -> bool:
    """Return whether a value has the type of a field."""
    kind, kinds = get_origin(hint) or hint, get_args(hint)
    if kind is UnionType:
        return any(_holds(value, each) for each in kinds)
    if kind is tuple:
        return isinstance(value, tuple) and all(isinstance(each, kinds[0]) for each in value)
    return isinstance(value, (int, float) if kind is float else kind)


def _keep(stored: StoredRun) -> StoredRun:
    return stored


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
