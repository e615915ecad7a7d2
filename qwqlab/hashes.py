"""Hashes of files, remembered: a 20 GB model is read once, not at every start."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from . import paths
from .errors import FetchError

CHUNK = 1 << 20
STAMP = ("size", "mtime_ns", "ctime_ns")

OnBytes = Callable[[int], None]
"""Called with the number of bytes just read; it may raise to stop the reading."""


def sha256_of(path: Path, on_bytes: OnBytes | None = None) -> str:
    """The sha256 of a file in hex, read only if its size or one of its times is new.

    What is remembered lies in `models_dir()/hashes.json`, keyed by path, size, and the times of
    its content and of its entry (mtime, ctime) in nanoseconds. A program can set the first back,
    and not the second. FetchError if the file cannot be read.
    """
    known = known_sha256(path)
    if known is not None:
        return known
    before = _stamp(path.stat()) if path.exists() else None
    found = read_sha256(path, on_bytes)
    if before == _stamp(path.stat()):
        remember_sha256(path, found)
    return found


def read_sha256(path: Path, on_bytes: OnBytes | None = None) -> str:
    """The sha256 of a file, read now and not remembered. FetchError if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                if on_bytes:
                    on_bytes(len(chunk))
    except FetchError:
        raise
    except OSError as error:
        raise FetchError(f"{path} cannot be read: {error.strerror}.") from error
    return digest.hexdigest()


def known_sha256(path: Path) -> str | None:
    """The remembered sha256 of a file, or None if it is new or has changed; reads no content."""
    try:
        stat = path.stat()
    except OSError:
        return None
    record = _load().get(str(path.resolve()))
    if isinstance(record, dict) and _stamp(stat) == [record.get(name) for name in STAMP]:
        value = record.get("sha256")
        return value if isinstance(value, str) else None
    return None


def remember_sha256(path: Path, sha256: str) -> None:
    """Keep the hash of a file that was just hashed.

    Nothing is kept where the folder cannot be written to; the file is then hashed again.
    """
    record = {**dict(zip(STAMP, _stamp(path.stat()), strict=True)), "sha256": sha256}
    update_json(_file(), str(path.resolve()), record)


def git_blob_sha1(path: Path, on_bytes: OnBytes | None = None) -> str:
    """The name that git gives to a file's content, which a hub states for its small files.

    It is sha1("blob <size>\\0" + content).
    """
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            if on_bytes:
                on_bytes(len(chunk))
    return digest.hexdigest()


def update_json(file: Path, key: str, value: object) -> None:
    """Set one key of a JSON object on disk, atomically; where it cannot be written, nothing."""
    with contextlib.suppress(OSError), _one_at_a_time(file):
        values = read_json(file)
        values[key] = value
        staged = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}")
        try:
            staged.write_text(json.dumps(values, indent=1, sort_keys=True), encoding="utf-8")
            staged.replace(file)
        finally:
            staged.unlink(missing_ok=True)


@contextlib.contextmanager
def _one_at_a_time(file: Path) -> Iterator[None]:
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_name(f".{file.name}.lock"), mode=0o664):
        yield


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in a file, empty if there is none or it is damaged."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _file() -> Path:
    return paths.models_dir() / "hashes.json"


def _load() -> dict[str, Any]:
    return read_json(_file())


def _stamp(stat: os.stat_result) -> list[int]:
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
