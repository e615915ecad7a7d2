"""The folder that an untrusted program is shut into, from outside: what it is given there, how much
lies in it, and what has escaped from it."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path

TICK = 0.05  # seconds between two looks


def list_variables(box: str) -> dict[str, str]:
    """The whole environment of a program in this box; nothing of the lab's own."""
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": box,
        "TMPDIR": box,
        "LANG": "C.UTF-8",
        # The stacks of a pool of threads count as memory.
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }


def list_sizes(box: str, pid: int | None) -> Iterator[int]:
    """The size of every file in the box, and of those deleted that the program holds open."""
    folders = [box]
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    yield entry.stat(follow_symlinks=False).st_size
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found = link.stat()
                if stat.S_ISREG(found.st_mode) and not found.st_nlink:
                    yield found.st_size


def kill_strays(box: str) -> None:
    """Kill what left the session where no layer keeps it in: it has the box as its home still."""
    mark = f"HOME={box}".encode()
    for _ in range(100):
        found = False
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    os.kill(int(folder.name), signal.SIGKILL)
                    found = True
        if not found:
            return
        time.sleep(TICK)
