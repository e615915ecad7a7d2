"""Run a program that nobody has read: shut in, watched, and gone at its end.

`run_python` writes the program into a fresh folder, the box, and runs it with this Python in a
process that has confined itself (`confine`) and that is watched from outside (`watch`): its clock,
output, folder and threads. What it says of itself after its first line counts for nothing; which
layers hold is known from a report made before. `probe` tells how far they go on this machine.

What this does not stop: a hole in the kernel; side channels such as timing; asking whether a path
exists, and the size and times of a file (stat); reading what every program here may read, which is
Python, its packages and the system's libraries; and the use of processor, memory and disk within
the limits. The folder is measured twenty times a second, so more can lie in it for a moment. Where
the lab itself is killed, the program ends soon after its time and the box stays behind. What a
program prints is text of its own choice: show it, and believe none of it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import SandboxError
from . import confine
from .isolation import DEFAULT_LIMITS, LEVELS, THREADS, Isolation, Limits, check_level, describe
from .system_calls import LATER, REFUSED
from .watch import Watch


@dataclass(frozen=True)
class Outcome:
    """How a program ended, what it printed and what it left in its folder.

    ended is "exited" or "killed"; status its exit code, or the negative number of the signal that
    ended it; reason a sentence for people; files name to content; seconds the wall clock from the
    program's first line.
    """

    ended: str
    status: int | None
    reason: str
    stdout: str
    stderr: str
    files: dict[str, bytes]
    seconds: float
    isolation: Isolation


@functools.cache
def probe() -> Isolation:
    """What this machine offers, found by running an empty program with all of it.

    >>> probe().level in LEVELS
    True
    """
    return run_python({"main.py": ""}, "main.py", minimum="weak").isolation


def run_python(
    files: Mapping[str, str | bytes],
    main: str,
    *,
    args: Sequence[str] = (),
    limits: Limits = DEFAULT_LIMITS,
    environment: Mapping[str, str] | None = None,
    minimum: str = "strong",
    keep: Callable[[str], bool] | None = None,
    stop: threading.Event | None = None,
) -> Outcome:
    """Run `main`, one of these files (name to content), in a box of its own; how it ended.

    It sees this Python with its packages, a folder with the files in which it can make plain
    files, and no variable of the lab's environment but those given. What it leaves there comes
    back if keep(name); without keep, all that it made or changed. Setting `stop` ends it at once.
    SandboxError where the level does not reach `minimum`, in which case no line of the program has
    run, and where a file cannot be put there.

    >>> run_python({"a.py": "print(6 * 7)"}, "a.py", minimum="weak").stdout
    '42\\n'
    """
    return _run(files, main, args, limits, environment or {}, minimum, keep, stop=stop)


def _run(
    files: Mapping[str, str | bytes],
    main: str,
    args: Sequence[str] = (),
    limits: Limits = DEFAULT_LIMITS,
    environment: Mapping[str, str] | None = None,
    minimum: str = "strong",
    keep: Callable[[str], bool] | None = None,
    without: Collection[str] = (),
    stop: threading.Event | None = None,
) -> Outcome:
    """As `run_python`, with layers left out by name, so that tests see what each holds alone."""
    if minimum not in LEVELS:
        raise SandboxError(f"minimum is {minimum!r}; it must be one of {', '.join(LEVELS)}.")
    if main not in files:
        raise SandboxError(f"{main!r} is to be run, but is not among the files.")
    box = os.path.realpath(tempfile.mkdtemp(prefix="qwqlab-box-"))
    try:
        given = _write_files(box, files)
        watch = Watch(box, limits, stop or threading.Event())
        plan = {
            "box": box,
            "main": main,
            "args": list(args),
            "levels": LEVELS,
            "minimum": minimum,
            "without": list(without),
            "outside": confine.list_namespaces(),
            "threads": THREADS,
            "refused": REFUSED,
            "unknown": list(LATER),
            "limits": {
                "cpu_seconds": limits.cpu_seconds,
                "memory_bytes": limits.memory_bytes,
                "file_bytes": limits.file_bytes,
            },
        }
        watch.run(plan, environment or {})
        text = {name: bytes(said).decode(errors="replace") for name, said in watch.printed.items()}
        if not watch.report:
            said = text["stderr"].strip().splitlines() or [watch.explain()]
            raise SandboxError(
                f"The sandbox did not start, and the program was not run: {said[-1]}"
            )
        isolation = describe(watch.report["applied"], limits)
        check_level(isolation, minimum, watch.report["lacking"])
        left = _read_files(box, limits, given, keep)
    finally:
        _remove(box)
    return Outcome(
        ended="killed" if watch.verdict or watch.status < 0 else "exited",
        status=watch.status,
        reason=watch.explain(),
        stdout=text["stdout"],
        stderr=text["stderr"],
        files=left,
        seconds=watch.seconds,
        isolation=isolation,
    )


def _write_files(box: str, files: Mapping[str, str | bytes]) -> dict[str, bytes]:
    given = {}
    for name, text in files.items():
        # Half a surrogate pair is for the program to stumble over.
        given[name] = text.encode(errors="surrogatepass") if isinstance(text, str) else text
        if "/" in name or name in ("", ".", ".."):
            raise SandboxError(f"{name!r} must be the name of a file, without a folder.")
        try:
            Path(box, name).write_bytes(given[name])
        except (OSError, ValueError) as error:
            raise SandboxError(f"{name!r} cannot be put into the sandbox: {error}.") from None
    return given


def _read_files(
    box: str,
    limits: Limits,
    given: Mapping[str, bytes],
    keep: Callable[[str], bool] | None,
) -> dict[str, bytes]:
    """What lies in the box: plain files alone, within the limits on size and number."""
    found: dict[str, bytes] = {}
    room = limits.folder_bytes
    with contextlib.suppress(OSError):
        for path in sorted(Path(box).iterdir()):
            name = os.fsencode(path.name).decode(errors="replace")
            if len(found) == limits.files or (keep and not keep(name)):
                continue
            with contextlib.suppress(OSError):
                # Neither a link is followed nor a pipe waited for.
                handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                with os.fdopen(handle, "rb") as file:
                    about = os.fstat(handle)
                    if not stat.S_ISREG(about.st_mode) or about.st_size > room:
                        continue
                    content = file.read(about.st_size)
                if keep or given.get(name) != content:
                    found[name] = content
                    room -= len(content)
    return found


def _remove(box: str) -> None:
    """Remove the folder, whatever the program made of it."""
    try:
        shutil.rmtree(box)
    except (OSError, RecursionError):
        # Folders that cannot be entered, or that lie deeper than Python can follow.
        subprocess.run(["chmod", "-R", "u+rwx", "--", box], capture_output=True)
        subprocess.run(["rm", "-rf", "--", box], capture_output=True)
