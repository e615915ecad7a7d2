"""The temporary folder of a sandboxed program: made, watched, read, and removed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Limits:
    """What a program may use: seconds of wall clock and of CPU; bytes of memory, of one file, of
    its folder and of what it prints; files in its folder."""

    seconds: float = 20.0
    cpu_seconds: int = 15
    memory_bytes: int = 1 << 30
    file_bytes: int = 32 << 20
    folder_bytes: int = 128 << 20
    files: int = 1000
    output_bytes: int = 1 << 20


@contextmanager
def make_box(files: Mapping[str, str | bytes]) -> Iterator[Path]:
    """A temporary folder that holds these files and is gone afterwards, whatever it then holds."""
    box = Path(tempfile.mkdtemp(prefix="qwqlab-box-")).resolve()
    try:
        for name, data in files.items():
            (box / name).write_bytes(data.encode() if isinstance(data, str) else data)
        yield box
    finally:
        with suppress(OSError):
            box.chmod(0o700)
        shutil.rmtree(box, ignore_errors=True)
        if box.exists():  # nested too deeply for Python, or locked by its modes
            for command in (["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
                subprocess.run([*command, "--", str(box)], capture_output=True, check=False)


def _list_files(box: Path, most: int) -> Iterator[os.DirEntry[str]]:
    """Files in the box and below it, links not followed; at most so many."""
    waiting, seen = [str(box)], 0
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                seen += 1
                if seen > most:
                    return
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)


def check_folder(box: Path, limits: Limits) -> str:
    """Why a box is too full; "" where it is not."""
    total = n_files = 0
    for entry in _list_files(box, limits.files + 1):
        n_files += 1
        with suppress(OSError):
            total += entry.stat(follow_symlinks=False).st_size
    if n_files > limits.files:
        return f"killed after it had written more than {limits.files:,} files"
    if total > limits.folder_bytes:
        return f"killed after it had filled its folder with {limits.folder_bytes:,} bytes"
    return ""


def collect(box: Path, given: Mapping[str, object], limits: Limits) -> dict[str, bytes]:
    """The plain files that a program left in its folder, within the limits."""
    found: dict[str, bytes] = {}
    for entry in _list_files(box, limits.files):
        with suppress(OSError):
            if entry.is_file(follow_symlinks=False) and entry.name not in given:
                if entry.stat().st_nlink == 1 and Path(entry.path).parent == box:
                    handle = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW)
                    with os.fdopen(handle, "rb") as file:
                        found[entry.name] = file.read(limits.file_bytes)
    return found
