"""Files written whole or not at all, and folders that can be written to."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from .errors import FileError, QwqlabError, SettingError

FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The name of a file beside `path`, which takes its place when the block is through.

    The block writes that file. If it fails, or the disk is full, what stood at `path` is as it
    was, and nothing half-written stays. FileError for what the system refuses.
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
    """As `replacing`, opened for text in UTF-8, line ends as they are written."""
    with (
        replacing(path) as part,
        part.open("w", encoding="utf-8", errors=errors, newline="") as out,
    ):
        yield out


def write_text(path: Path, text: str, errors: str = "strict") -> Path:
    """Write a file in UTF-8, whole or not at all; gives the path."""
    with replacing_text(path, errors) as out:
        out.write(text)
    return path


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Put what the system says of a failed write into a sentence: FileError."""
    try:
        yield
    except QwqlabError:
        raise
    except OSError as error:
        if error.errno in FULL:
            raise FileError(
                f"{path} cannot be written: its disk is full; make room and run it again."
            ) from error
        raise FileError(
            f"{path} cannot be written: {error.strerror or error}; name another file."
        ) from error


def read_bytes(path: Path, most: int) -> bytes:
    """A file that a person named, which may be anything, /dev/zero too.

    OSError if it can't be read, SettingError if it has more than `most` bytes.
    """
    with path.open("rb") as file:
        raw = file.read(most + 1)
    if len(raw) > most:
        raise SettingError(f"{path} has more than {most:,} bytes; give a shorter one")
    return raw


def place_folder(staged: Path, target: Path) -> None:
    """Give a whole folder its place; one that another process put there meanwhile stays."""
    try:
        staged.replace(target)
    except OSError:
        if not target.is_dir():
            raise


def make_folder(folder: Path) -> Path:
    """One of the lab's own folders, made where it is not there; FileError if it can't be used."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
        read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
        reason = "its disk is read-only" if read_only else "its rights do not allow it"
    except OSError as error:
        reason = error.strerror or str(error)
    raise FileError(
        f"{folder} cannot be written to ({reason}); set QWQLAB_HOME to a folder of yours."
    )
