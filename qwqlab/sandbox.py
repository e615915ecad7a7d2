"""Run untrusted Python, and say how well it was confined.

The program runs in a process of its own session, with rlimits, a wall clock, an empty environment
and a temporary folder, which is removed afterwards. On Linux it also loses, where the kernel offers
it, the file system but for its folder (Landlock), the network and other processes (seccomp, and
namespaces by `unshare`). `probe` says what this machine offers.

What it does not stop: flaws of the kernel, reading of times and sizes of files (not their content),
other programs made slow by a busy core, and a program that lies about its own results.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from . import confine
from .box import Limits, check_folder, collect, make_box
from .errors import SandboxError
from .isolation import (
    LEVELS,
    OWN_TREE,
    UNSHARE,
    Isolation,
    describe,
    has_namespaces,
    has_seccomp,
    refuse,
)

POLL = 0.05  # seconds
DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Outcome:
    """How a program ended.

    ended is "exited" or "killed"; status its exit code, or minus the signal; reason says so in a
    sentence. stdout and stderr are cut at Limits.output_bytes. files holds what the program left in
    its folder, by name.
    """

    ended: str
    status: int | None
    reason: str
    stdout: str
    stderr: str
    files: dict[str, bytes]
    seconds: float
    isolation: Isolation


@functools.lru_cache(maxsize=1)
def probe() -> Isolation:
    """What this machine offers, found out by running a program that does nothing."""
    return run_python({"main.py": "pass\n"}, "main.py", minimum="weak").isolation


def run_python(
    files: Mapping[str, str | bytes],
    main: str,
    *,
    args: Sequence[str] = (),
    limits: Limits = DEFAULT_LIMITS,
    environment: Mapping[str, str] | None = None,
    minimum: str = "strong",
    without: Sequence[str] = (),
    stop: threading.Event | None = None,
) -> Outcome:
    """Put files into a folder of their own and run one of them with this Python, confined.

    `without` leaves layers out ("rlimits", "landlock", "seccomp", "namespaces"), to see what each
    is worth. Setting `stop` ends the program at once. Raises SandboxError where the level reached
    is below `minimum`; then the program has not run.

    >>> run_python({"main.py": "print(6 * 7)"}, "main.py", minimum="weak").stdout
    '42\\n'
    """
    if minimum not in LEVELS:
        raise SandboxError(f"{minimum!r} is no level of isolation; choose from {', '.join(LEVELS)}")
    with make_box(files) as box:
        run = _Run(box, main, args, limits, environment or {}, minimum, without, stop)
        return run.finish(files)


class _Run:
    """One process, from its start to the last byte that it printed."""

    def __init__(
        self,
        box: Path,
        main: str,
        args: Sequence[str],
        limits: Limits,
        environment: Mapping[str, str],
        minimum: str,
        without: Sequence[str],
        stop: threading.Event | None,
    ) -> None:
        self._box, self._limits, self._minimum = box, limits, minimum
        self._killed = ""
        self._stop = stop or threading.Event()
        self._output = {"stdout": bytearray(), "stderr": bytearray()}
        self._started = time.monotonic()
        spaces = "namespaces" not in without and has_namespaces()
        report, theirs = os.pipe()
        wait, go = os.pipe()
        plan = {
            **asdict(limits),
            "box": str(box),
            "main": main,
            "args": list(args),
            "report": theirs,
            "go": wait,
            "without": list(without),
        }
        command = [
            *(UNSHARE if spaces else ()),
            *(OWN_TREE if spaces and ("seccomp" in without or not has_seccomp()) else ()),
            *(sys.executable, "-I", "-B", "-X", "utf8", confine.__file__, json.dumps(plan)),
        ]
        try:
            self._process = subprocess.Popen(
                [*_end_with_lab(limits.seconds), *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=box,
                env=_make_environment(box, environment),
                pass_fds=[theirs, wait],
                start_new_session=True,
            )
        except OSError as error:
            os.close(report)
            os.close(go)
            raise SandboxError(f"the sandbox could not be started: {error}") from None
        finally:
            os.close(theirs)
            os.close(wait)
        self._readers = [
            threading.Thread(target=self._read, args=(name,), daemon=True) for name in self._output
        ]
        for reader in self._readers:
            reader.start()
        try:
            self._isolation = self._await_report(report, spaces)
            with suppress(BrokenPipeError):
                os.write(go, b"1")
            self._watch()
        finally:
            os.close(go)
            self._kill()

    def finish(self, given: Mapping[str, object]) -> Outcome:
        """The outcome, once the process and all that it started have ended."""
        status = self._process.returncode
        for reader in self._readers:
            reader.join(5)
        reason = self._killed or _name_status(status)
        died = bool(self._killed) or status < 0 or status > 128
        stdout, stderr = (bytes(part).decode("utf-8", "replace") for part in self._output.values())
        files = collect(self._box, given, self._limits)
        seconds = time.monotonic() - self._started
        ended = "killed" if died else "exited"
        return Outcome(ended, status, reason, stdout, stderr, files, seconds, self._isolation)

    def _await_report(self, report: int, spaces: bool) -> Isolation:
        """What the process says that it applied. Without a word it has not been confined."""
        with os.fdopen(report, "rb") as pipe:
            said: list[bytes] = []
            reader = threading.Thread(
                target=lambda: said.append(pipe.readline(10_000)), daemon=True
            )
            reader.start()
            reader.join(max(10.0, self._limits.seconds))
            if not said or not said[0]:
                self._kill()
                reader.join(5)
                last = bytes(self._output["stderr"])[-300:].decode("utf-8", "replace").strip()
                raise SandboxError(f"the sandbox could not be set up: {last or 'no answer'}")
        isolation = describe([*json.loads(said[0]), *(["namespaces"] if spaces else [])])
        if LEVELS.index(isolation.level) < LEVELS.index(self._minimum):
            self._kill()
            raise SandboxError(refuse(isolation, self._minimum))
        return isolation

    def _watch(self) -> None:
        """Wait for the end; kill what passes a limit that the kernel doesn't hold."""
        until = self._started + self._limits.seconds
        while self._process.poll() is None and not self._killed:
            if self._stop.is_set():
                self._killed = "stopped"
            elif time.monotonic() > until:
                self._killed = f"killed after {self._limits.seconds:.0f} s of wall clock"
            else:
                self._killed = self._killed or check_folder(self._box, self._limits)
            if not self._killed:
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(POLL)

    def _read(self, name: str) -> None:
        stream = getattr(self._process, name)
        most = self._limits.output_bytes
        with suppress(OSError, ValueError):
            while data := stream.read1(65_536):
                kept = self._output[name]
                kept += data[: most - len(kept)]
                if len(kept) >= most and not self._killed:
                    self._killed = f"killed after it had printed {most:,} bytes"

    def _kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _end_with_lab(seconds: float) -> list[str]:
    """A program that ends the run even where the lab was killed and can't."""
    timeout = shutil.which("timeout")
    return [timeout, "--foreground", "--signal=KILL", f"{seconds + 15:.0f}"] if timeout else []


def _make_environment(box: Path, more: Mapping[str, str]) -> dict[str, str]:
    """Nothing of the lab's own: it may hold secrets."""
    plain = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8", "HOME": str(box)}
    return {**plain, "TMPDIR": str(box), "OPENBLAS_NUM_THREADS": "1", **more}


def _name_status(status: int) -> str:
    """An exit status in words; a wrapper gives a signal as 128 and its number."""
    number = -status if status < 0 else status - 128 if status > 128 else 0
    if number:
        with suppress(ValueError):
            name = signal.Signals(number).name
            why = {"SIGXCPU": "used up its CPU time", "SIGXFSZ": "wrote too large a file"}.get(name)
            return f"killed by {name}" + (f": it {why}" if why else "")
    return f"exited with status {status}"
