"""Files written whole or not at all, and their hashes, which are remembered.

A 20 GB model is read once to hash it, not at every start.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from . import paths
from .errors import FetchError, FileError, QwqlabError, SettingError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_MOST_TEXT = 1 << 30  # bytes; a device has no end


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the name of a file beside `path`, which replaces `path` after the block.

    The block writes that file. If it fails, or the disk is full, `path` is as it was and nothing
    half-written is left. Raise FileError for what the system refuses.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield part
            with part.open("rb+") as file:  # some disks say only now that they are full
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            with suppress(OSError):
                part.unlink()


@contextmanager
def replacing_text(path: Path, errors: str = "strict") -> Iterator[TextIO]:
    """As `replacing`, but yield a file open for text in UTF-8; line ends are written as given."""
    with (
        replacing(path) as part,
        part.open("w", encoding="utf-8", errors=errors, newline="") as out,
    ):
        yield out


def write_text(path: Path, text: str, errors: str = "strict") -> Path:
    """Write a file in UTF-8, whole or not at all, and return its path."""
    with replacing_text(path, errors) as out:
        out.write(text)
    return path


def write_json(path: Path | None, values: object) -> None:
    """Write a command's result as JSON, whole or not at all, if a file for it was named."""
    if path:
        write_text(path, json.dumps(values, indent=1))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise FileError, in a sentence that names `path`, for an OSError of the block."""
    try:
        yield
    except QwqlabError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise FileError(
                f"{path} cannot be written: its disk is full; make room and run it again."
            ) from error
        raise FileError(
            f"{path} cannot be written: {error.strerror or error}; name another file."
        ) from error


def read_bytes(path: Path, most: int) -> bytes:
    """Return the content of a file that a person named.

    Raise OSError if it cannot be read, SettingError if it has more than `most` bytes, or is a pipe
    or a device, which may never end.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise SettingError(f"{path} is no regular file; save what it gives in one, and name that")
    with path.open("rb") as file:
        raw = file.read(most + 1)
    if len(raw) > most:
        raise SettingError(f"{path} has more than {most:,} bytes; give a shorter one")
    return raw


def read_text(path: Path, error: type[QwqlabError] = SettingError) -> str:
    """Return a text that a person wrote, in UTF-8, without a byte order mark; lines end in "\\n".

    Raise `error`, in a sentence that names the file, for what cannot be read or is no such text.
    """
    try:
        raw = read_bytes(path, _MOST_TEXT)
        text = raw.decode("utf-8-sig")
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem.strerror or problem}") from problem
    except UnicodeDecodeError as problem:
        raise error(f"{path} is not text in UTF-8; save it as UTF-8") from problem
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_json(path: Path, error: type[QwqlabError] = SettingError) -> Any:
    """Return the value in a JSON file that a person wrote; raise `error` as `read_text` does."""
    text = read_text(path, error)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise error(f"{path} is not JSON: {str(problem)[:80]}") from problem


def place_folder(staged: Path, target: Path) -> None:
    """Move a finished folder to its place, or leave it if another process was first."""
    try:
        staged.replace(target)
    except OSError:
        if not target.is_dir():
            raise


def make_folder(folder: Path) -> Path:
    """Make one of the lab's own folders where needed; raise FileError if it cannot be used."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
        reason = "its disk is read-only, or its rights do not allow it"
    except OSError as error:
        reason = error.strerror or str(error)
    raise FileError(
        f"{folder} cannot be written to ({reason}); set QWQLAB_HOME to a folder of yours."
    )


def check_disk(folder: Path, n_bytes: int, subject: str, remedy: str) -> None:
    """Raise FetchError if `folder`, or the nearest folder above it, has no room for n_bytes."""
    place = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(place).free
    if n_bytes > free:
        raise FetchError(
            f"{subject} needs {show_size(n_bytes)} more and {place} has {show_size(free)} free: "
            f"make room, or {remedy}."
        )


def show_size(n_bytes: int) -> str:
    """Return a size as people read it, in GB of 10^9 bytes or MB of 10^6.

    >>> show_size(19_900_000_000), show_size(98_362_432)
    ('19.9 GB', '98.4 MB')
    """
    unit, letters = (1e9, "GB") if n_bytes >= 1e9 else (1e6, "MB")
    return f"{n_bytes / unit:.1f} {letters}"


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file in hex; it is read only if it is new or has changed.

    `models_dir()/hashes.json` remembers it by path, size, mtime and ctime in nanoseconds; a program
    can set back mtime but not ctime. Raise FetchError if the file cannot be read.
    """
    known = known_sha256(path)
    if known is None:
        known = read_sha256(path)
        remember_sha256(path, known)
    return known


def read_sha256(path: Path) -> str:
    """Return the sha256 of a file, read now; raise FetchError if it cannot be read."""
    return _read_digest(path, hashlib.sha256())


def known_sha256(path: Path) -> str | None:
    """Return the remembered sha256 of a file, or None if it is new or has changed."""
    try:
        stat = path.stat()
    except OSError:
        return None
    record = read_json(_hashes_file()).get(str(path.resolve()), {})
    return record.get("sha256") if record.get("stamp") == _stamp(stat) else None


def remember_sha256(path: Path, sha256: str) -> None:
    """Remember the hash of a file that was just hashed, if the models folder can be written."""
    record = {"stamp": _stamp(path.stat()), "sha256": sha256}
    update_json(_hashes_file(), str(path.resolve()), record)


def git_blob_sha1(path: Path) -> str:
    """Return git's name for a file's content, which a hub states for its small files.

    It is sha1("blob <size>\\0" + content).
    """
    start = f"blob {path.stat().st_size}\0".encode()
    return _read_digest(path, hashlib.sha1(start, usedforsecurity=False))


@contextmanager
def locked(lock: Path) -> Iterator[None]:
    """Hold a lock file, so that one process at a time runs the block."""
    from filelock import FileLock  # here, so that a doctor without it can still report it

    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock, mode=0o664):
        yield


def update_json(file: Path, key: str, value: object) -> None:
    """Set one key of the JSON object in a file, one process at a time.

    The lab can do without the object: a file that cannot be written is left as it is.
    """
    with suppress(OSError), locked(file.with_name(f".{file.name}.lock")):
        write_text(file, json.dumps({**read_json(file), key: value}, indent=1, sort_keys=True))


def read_json(file: Path) -> dict[str, Any]:
    """Return the JSON object in a file, empty if there is none or it is damaged."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _read_digest(path: Path, digest: Any) -> str:
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise FetchError(f"{path} cannot be read: {error.strerror}.") from error
    return str(digest.hexdigest())


def _hashes_file() -> Path:
    return paths.models_dir() / "hashes.json"


def _stamp(stat: os.stat_result) -> list[int]:
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
