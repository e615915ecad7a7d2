"""A stored run as a value, the key that it is known by, and the row of a table that it becomes."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np

from ..records import Request, Run
from ..sampling import Sampling
from .metrics import RunMetrics, measure

_METRICS = tuple(field.name for field in fields(RunMetrics))
_RUN = ("n_prompt", "text", "stop", "seconds")
_SEQUENCES = ("tokens", "ranks", "escapes")
COLUMNS = (
    *("experiment", "label", "key", "model", "model_sha256", "build", "settings", "command"),
    *("started_at", "prompt", "sampling", "seed", "n_predict", *_RUN, *_SEQUENCES, *_METRICS),
)


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
        """As JSON-ready values."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**own, "run": self.run.to_dict(), "metrics": self.metrics.to_dict()}


def run_key(request: Request, *, model_sha256: str, build: str, settings: Mapping[str, Any]) -> str:
    """A hash of all that decides a run's tokens: model, llama.cpp build, engine settings, request.

    The request's label does not count; 1 and 1.0 are the same number. 64 hexadecimal digits, the
    same in every process and on every machine.
    """
    values = request.to_dict()
    del values["label"]
    parts = {"model": model_sha256, "build": build, "settings": dict(settings), "request": values}
    text = json.dumps(_normalise(parts), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def make_row(
    run: Run,
    *,
    experiment: str,
    model: str,
    model_sha256: str,
    build: str,
    settings: Mapping[str, Any],
    command: str,
) -> dict[str, Any]:
    """A value for each of COLUMNS; the run is measured here."""
    request = run.request
    started = datetime.now(timezone.utc) - timedelta(seconds=run.seconds)
    return {
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


def read_row(row: sqlite3.Row) -> StoredRun:
    """The run that `make_row` took apart."""
    values = {name: from_sql(row[name]) for name in COLUMNS if name not in _SEQUENCES}
    request = Request(
        prompt=values["prompt"],
        sampling=Sampling.from_dict(json.loads(values["sampling"])),
        seed=values["seed"],
        n_predict=values["n_predict"],
        label=values["label"],
    )
    sequences: dict[str, Any] = {name: _unpack(row[name]) for name in _SEQUENCES}
    kept: dict[str, Any] = {name: values[name] for name in _RUN}
    run = Run(request=request, **kept, **sequences)
    flags = {name: bool(values[name]) for name in ("valid_code", "loop", "runaway")}
    metrics = RunMetrics(**{**{name: values[name] for name in _METRICS}, **flags})
    names = ("experiment", "key", "model", "model_sha256", "build", "command", "started_at")
    return StoredRun(
        run=run,
        settings=json.loads(values["settings"]),
        metrics=metrics,
        **{name: values[name] for name in names},
    )


def _normalise(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _normalise(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_normalise(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def to_sql(value: Any) -> Any:
    """A value for SQLite: text that TEXT cannot carry whole becomes a blob (see `RunStore`)."""
    if not isinstance(value, str):
        return value
    raw = value.encode("utf-8", "surrogatepass")
    return raw if "\0" in value or raw != value.encode("utf-8", "replace") else value


def from_sql(value: Any) -> Any:
    """The inverse of `to_sql`."""
    return value.decode("utf-8", "surrogatepass") if isinstance(value, bytes) else value


def _pack(values: tuple[int, ...]) -> bytes:
    return zlib.compress(np.asarray(values, dtype="<i4").tobytes())


def _unpack(blob: bytes) -> tuple[int, ...]:
    return tuple(np.frombuffer(zlib.decompress(blob), dtype="<i4").tolist())
