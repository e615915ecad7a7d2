"""Run an untrusted program: confined, watched, and gone when it ends.

`run_python` writes the program into a fresh folder, the box, and runs it with this Python in a
process that has confined itself (`confine`) and that is watched from outside (`process`): its
clock, output, folder and threads. Which layers hold is known from a report made before the
program's first line, never from the program itself. `probe` shows how far they go on this machine.

SECURITY.md says what this holds on which system, and what it does not. Where the lab itself is
killed, the program ends soon after its time and the box stays behind. What a program prints is
text of its own choice: show it, and believe none of it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import SandboxError
from . import confine, process
from .confine import LEVELS
from .process import Limits, Watch

_DEFAULT_LIMITS = Limits()
_LEFT_OUT: tuple[str, ...] = ()  # layers that a test takes away, to see what the others hold
_LANDLOCK = 0  # the version of Landlock that a test asks for, as an older kernel has it
_REMEDIES = {
    "limits": "resource limits, which this system does not take",
    "landlock": "Landlock, which Linux has since 5.13 (`landlock` must be in the kernel's `lsm=`)",
    "seccomp": "seccomp, for which the system's libseccomp is needed (Debian: libseccomp2)",
}


@dataclass(frozen=True)
class Isolation:
    """How well a program is confined, a sentence for each subject; `applied` names the layers.

    The level is "strong" where files, network, processes, memory and time are all held, "partial"
    where some of them are, and "weak" where only time, memory and the size of files are.
    """

    level: str
    network: str
    filesystem: str
    memory: str
    processes: str
    applied: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True)
class Outcome:
    """How a program ended, what it printed and what it left in its folder.

    status is its exit code, or the negative number of the signal that ended it; reason a sentence
    for people; files name to content; seconds the wall clock from the program's first line.
    """

    status: int
    reason: str
    stdout: str
    stderr: str
    files: dict[str, bytes]
    seconds: float
    isolation: Isolation


@functools.cache
def probe() -> Isolation:
    """Return what this machine offers, found by running an empty program with all of it.

    >>> probe().level in LEVELS
    True
    """
    return run_python({"main.py": ""}, "main.py", minimum="weak").isolation


def run_python(
    files: Mapping[str, str | bytes],
    main: str,
    *,
    limits: Limits = _DEFAULT_LIMITS,
    minimum: str = "strong",
    stop: threading.Event | None = None,
) -> Outcome:
    """Run `main`, one of these files (name to content), in a box of its own; return how it ended.

    It sees this Python with its packages, a folder with the files in which it can make plain
    files and folders, and no variable of the lab's environment. The files that it made or changed
    beside its own come back; those in folders do not. Setting `stop` ends it at once. Raise
    SandboxError if the level does not reach `minimum`: then no line of the program has run.

    >>> run_python({"a.py": "print(6 * 7)"}, "a.py", minimum="weak").stdout
    '42\\n'
    """
    if minimum not in LEVELS:
        raise SandboxError(f"minimum is {minimum!r}; it must be one of {', '.join(LEVELS)}.")
    box = os.path.realpath(tempfile.mkdtemp(prefix="qwqlab-box-"))
    watch = Watch(box, limits, stop or threading.Event())
    try:
        given = _write_files(box, files)
        plan = {
            "box": box,
            "main": main,
            "minimum": minimum,
            "without": _LEFT_OUT,
            "abi": _LANDLOCK,
            "disk": [process.FOLDER, process.FILES],
            "threads": process.THREADS,
            "limits": [limits.cpu_seconds, limits.memory_bytes, process.FILE],
        }
        watch.run(plan)
        if not watch.report:
            said = watch.stderr.strip().splitlines() or [watch.explain()]
            raise SandboxError(
                f"The sandbox did not start, and the program was not run: {said[-1]}"
            )
        isolation = _rate_isolation(watch.report["applied"], limits.memory_bytes)
        _check_level(isolation, minimum, watch.report["failed"])
        left = {} if watch.folder is None else _read_files(watch.folder, given)
    finally:
        if watch.folder is not None:
            os.close(watch.folder)
        with contextlib.suppress(RecursionError):  # of folders without end
            shutil.rmtree(box, ignore_errors=True)
        if os.path.lexists(box):
            subprocess.run(["rm", "-rf", "--", box], capture_output=True, check=False)
    return Outcome(
        status=watch.status,
        reason=watch.explain(),
        stdout=watch.stdout,
        stderr=watch.stderr,
        files=left,
        seconds=watch.seconds,
        isolation=isolation,
    )


def _write_files(box: str, files: Mapping[str, str | bytes]) -> dict[str, bytes]:
    given = {}
    for name, text in files.items():
        if "/" in name or name in ("", ".", ".."):
            raise SandboxError(f"{name!r} must be the name of a file, without a folder.")
        # Half a surrogate pair is for the program to stumble over.
        given[name] = text.encode(errors="surrogatepass") if isinstance(text, str) else text
        Path(box, name).write_bytes(given[name])
    return given


def _read_files(folder: int, given: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return what is new in the box: plain files alone, within the limits on size and number."""
    found: dict[str, bytes] = {}
    room = process.FOLDER
    entries: list[str] = []
    with contextlib.suppress(OSError):  # it may be gone where no layer held it
        entries = sorted(os.listdir(folder))
    for entry in entries:
        name = os.fsencode(entry).decode(errors="replace")
        if len(found) == process.FILES:
            break
        with contextlib.suppress(OSError):
            # Neither a link is followed nor a pipe waited for.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            handle = os.open(entry, flags, dir_fd=folder)
            with os.fdopen(handle, "rb") as file:
                about = os.fstat(handle)
                if not stat.S_ISREG(about.st_mode) or about.st_size > room:
                    continue
                content = file.read(about.st_size)
            if given.get(name) != content:
                found[name] = content
                room -= len(content)
    return found


def _rate_isolation(applied: Sequence[str], memory_bytes: int) -> Isolation:
    """Return what these layers give together.

    >>> _rate_isolation(["limits"], 1 << 30).network
    'open: all that this machine reaches'
    """
    filtered, apart = "seccomp" in applied, "namespaces" in applied
    folder, memory = f"{process.FOLDER >> 20} MiB", f"{memory_bytes >> 20} MiB"
    if "disk" in applied:
        folder += " in memory"
    network = ["no socket can be made"] if filtered else []
    network += ["its network has no device"] if apart else []
    filesystem = f"open: all that this user may open; its own folder is held to {folder}"
    if "landlock" in applied:
        filesystem = (
            f"reads Python and system libraries, writes its own folder of at most {folder}; "
            "nothing else can be opened"
        )
        if not filtered:
            filesystem += ", but mode, owner and times of this user's files can be changed"
    processes = "open: it can start others, and signal this user's; one that hides may outlive it"
    if filtered:
        processes = f"itself alone, of at most {process.THREADS} threads; it can signal no other"
    elif apart:
        processes = "its own, which end with it; it can signal no other"
    # macOS takes a limit on memory and does not hold anybody to it.
    bounded = "limits" in applied and sys.platform != "darwin"
    bound = f"at most {memory}" + ("" if filtered else " for each of its processes")
    return Isolation(
        level=confine.rate(applied),
        network=f"none: {', '.join(network)}" if network else "open: all that this machine reaches",
        filesystem=filesystem,
        memory=bound if bounded else "not limited",
        processes=processes,
        applied=tuple(applied),
    )


def _check_level(isolation: Isolation, minimum: str, failed: Mapping[str, str]) -> None:
    """Raise SandboxError, with what is missing and how to get it, if below the minimum.

    failed: the reason for each layer that was tried and failed.
    """
    if LEVELS.index(isolation.level) >= LEVELS.index(minimum):
        return
    missing = "; ".join(
        f"{remedy} (here: {failed.get(name, 'left out')})"
        for name, remedy in _REMEDIES.items()
        if name not in isolation.applied
    )
    raise SandboxError(
        f"The sandbox is {isolation.level} here and not {minimum}, so the program was not run. "
        f"Missing: {missing}. minimum={isolation.level!r} runs it all the same."
    )
