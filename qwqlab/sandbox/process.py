"""One untrusted process from its start to the last of it: started, watched, ended, reaped.

`timeout` is the outermost process, so that the program ends where the lab is killed; then
`unshare`, for namespaces of its own, where this user may have them; then Python with `confine`.
The program prints into files rather than pipes: there a limit is a size, and nothing has to be
read while it runs.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from . import confine

# Seconds: for the start, for the end, and between two looks at what the program uses.
START, GRACE, TICK = 20.0, 5.0, 0.01
# Bytes: of one file, of all in the folder, of stdout and of stderr.
FILE, FOLDER, OUTPUT = 64 << 20, 128 << 20, 1 << 20
FILES, DEPTH, THREADS = 1000, 32, 64
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_UNSHARE = "--mount --net --ipc --pid --fork --kill-child".split()
_AS_USER = "--user --map-current-user --keep-caps".split()  # `confine` drops them


@dataclass(frozen=True)
class Limits:
    """What a program may use up: seconds of wall clock and of processor, bytes of memory."""

    seconds: float = 20
    cpu_seconds: int = 15
    memory_bytes: int = 1 << 30


@dataclass
class Watch:
    """A program in its box, the folder that it is shut into. After `run` the rest says how it went.

    folder is a handle of the box as the program saw it, for the caller to close, or None; report
    what the child said before the program started, empty if it never came to that;
    verdict the reason for which it was killed, or ""; status its exit code or the negative number
    of a signal; seconds the time of the clock since the program started.
    """

    box: str
    limits: Limits
    stop: threading.Event
    folder: int | None = None
    report: dict[str, Any] = field(default_factory=dict)
    verdict: str = ""
    status: int = 0
    seconds: float = 0.0
    stdout: str = ""
    stderr: str = ""
    _said: bytes = b""

    def run(self, plan: dict[str, Any]) -> None:
        """Start the child, watch it and end it; when this returns or raises, nothing of it runs."""
        command = [*_find_wrapper("namespaces" not in plan["without"]), sys.executable]
        if timeout := shutil.which("timeout"):
            life = START + self.limits.seconds + GRACE
            command = [timeout, "--foreground", "--signal=KILL", str(life), *command]
        command += [*"-I -B -u -X utf8".split(), confine.__file__]
        with contextlib.ExitStack() as stack:
            given, out, err = (
                stack.enter_context(tempfile.TemporaryFile(buffering=0)) for _ in range(3)
            )
            told, report = map(stack.enter_context, socket.socketpair())
            told.setblocking(False)
            # The plan goes in as a file: a command line is short, and every user can read it.
            given.write(json.dumps({**plan, "report": report.fileno()}).encode())
            given.seek(0)
            process = subprocess.Popen(
                command,
                stdin=given,
                stdout=out,
                stderr=err,
                start_new_session=True,
                pass_fds=[report.fileno()],
                cwd=self.box,
                env=_list_variables(self.box),
            )
            try:
                self._follow(process, told, {"stdout": out, "stderr": err})
            finally:
                self._end(process)
                self._read_report(told)
                self.stdout, self.stderr = (
                    os.pread(file.fileno(), OUTPUT, 0).decode(errors="replace")
                    for file in (out, err)
                )

    def _follow(
        self, process: subprocess.Popen[bytes], told: socket.socket, outputs: dict[str, IO[bytes]]
    ) -> None:
        """Look at it until it ends or goes beyond a limit."""
        begun, ended = time.monotonic(), False
        until = begun + START
        while not ended and not self.verdict:
            time.sleep(TICK)
            ended, now = process.poll() is not None, time.monotonic()
            if not self.report and self._read_report(told):
                begun, until = now, now + self.limits.seconds
            if self.report and self.stop.is_set() and not ended:
                self.verdict = "because it was stopped"
            elif now >= until and not ended:
                self.verdict = f"after {until - begun:g} s of wall clock"
            self._measure(outputs)
        self.seconds = time.monotonic() - begun

    def _measure(self, outputs: dict[str, IO[bytes]]) -> None:
        """See whether output, folder and threads are within their limits.

        A folder that is a disk of its own is held to them by the kernel.
        """
        for name, file in outputs.items():
            if os.fstat(file.fileno()).st_size > OUTPUT:
                self.verdict = f"because it printed more than {OUTPUT >> 20} MiB to {name}"
        pid, n_bytes, n_files = self.report.get("pid"), 0, 0
        if "disk" not in self.report.get("applied", ()):
            try:
                for size in _list_sizes(self.box):
                    n_bytes, n_files = n_bytes + size, n_files + 1
                    if n_files > FILES:
                        self.verdict = f"because it made more than {FILES} files"
                        break
            except OSError:
                self.verdict = "because its folders are too deep to be measured"
        if n_bytes > FOLDER:
            self.verdict = f"because it filled its folder with more than {FOLDER >> 20} MiB"
        with contextlib.suppress(OSError):
            if sum(1 for _ in Path(f"/proc/{pid}/task").iterdir()) > THREADS:
                self.verdict = f"because it started more than {THREADS} threads"

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Kill what is left of it, from the inside out, so that each parent reaps its child."""
        pid = self.report.get("pid")
        if pid and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
        held = {"namespaces", "seccomp"} & {*self.report.get("applied", ())}
        if process.poll() is None or not held:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            _kill_strays(self.box)
        self.status = process.returncode

    def _read_report(self, told: socket.socket) -> bool:
        """Take what `confine` told; return whether the program has started.

        A handle of the folder comes first, and a line before the program's first; in a namespace
        another line after its end.
        """
        with contextlib.suppress(BlockingIOError):
            while True:
                said, handles, _, _ = socket.recv_fds(told, 1 << 16, 1, _CLOSE_ON_EXEC)
                if handles:
                    (self.folder,) = handles
                if not said:
                    break
                self._said += said
        lines = self._said.split(b"\n")[:-1]
        if lines:
            self.report = json.loads(lines[0])
        if len(lines) > 1:
            self.status = json.loads(lines[1])
        return bool(lines)

    def explain(self) -> str:
        """Return the end in one sentence."""
        if self.verdict:
            return f"killed {self.verdict}"
        if self.status >= 0:
            return f"exited with status {self.status}"
        if self.status == -signal.SIGXCPU:
            return f"killed because it used up its {self.limits.cpu_seconds} s of processor time"
        try:
            return f"killed by signal {signal.Signals(-self.status).name}"
        except ValueError:
            return f"killed by signal {-self.status}"


@functools.cache
def _find_wrapper(namespaces: bool) -> tuple[str, ...]:
    """Return the command that runs a command in namespaces of its own, or () where there are none.

    Root needs no namespace of users, and without one it can be counted (see `confine`).
    """
    for options in (_UNSHARE, [*_UNSHARE, *_AS_USER]):
        if namespaces and (unshare := shutil.which("unshare")):
            command = (unshare, *options)
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                subprocess.run([*command, "true"], check=True, capture_output=True, timeout=START)
                return command
    return ()


def _list_variables(box: str) -> dict[str, str]:
    """Return the whole environment of a program in this box; nothing of the lab's own."""
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": box,
        "TMPDIR": box,
        "LANG": "C.UTF-8",
        # The stacks of a pool of threads count as memory.
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }


def _list_sizes(box: str) -> Iterator[int]:
    """Yield the bytes on the disk of everything in the box.

    Raise OSError if a folder can't be listed, or lies deeper than a program has a use for.
    """

    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    for folder, folders, names in os.walk(box, onerror=fail):
        if folder.count("/") > box.count("/") + DEPTH:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), folder)
        for name in (*folders, *names):
            with contextlib.suppress(FileNotFoundError):
                yield Path(folder, name).lstat().st_blocks * 512


def _kill_strays(box: str) -> None:
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
