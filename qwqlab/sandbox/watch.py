"""One untrusted process from its start to the last of it: started, watched, ended, reaped.

`timeout` is the outermost process, so that the program ends where the lab is killed; then
`unshare`, for namespaces of its own, where ordinary users may have them; then, for root,
`setpriv`, which drops its capabilities; then Python with `confine`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import confine
from .box import TICK, kill_strays, list_sizes, list_variables
from .isolation import THREADS, Limits, show_bytes

# Seconds for the start, and for the end.
START, GRACE = 20.0, 5.0
REPORT_BYTES = 1 << 16
UNSHARE = "--user --map-current-user --net --ipc --pid --fork --kill-child".split()
SETPRIV = "--bounding-set=-all --inh-caps=-all".split()


@dataclass
class Watch:
    """A program in its box. After `run` the fields say how it went.

    report is what the child said before the program started, empty if it never came to that;
    verdict the reason for which it was killed, or ""; status its exit code or the negative number
    of a signal; cpu and seconds the time of processor and clock since the program started.
    """

    box: str
    limits: Limits
    stop: threading.Event
    report: dict[str, Any] = field(default_factory=dict)
    verdict: str = ""
    status: int = 0
    cpu: float = 0.0
    seconds: float = 0.0
    printed: dict[str, bytearray] = field(
        default_factory=lambda: {name: bytearray() for name in ("stdout", "stderr", "report")}
    )

    def run(self, plan: dict[str, Any], environment: Mapping[str, str]) -> None:
        """Start the child, watch it and end it; when this returns or raises, nothing of it runs."""
        command = [*find_wrapper("namespaces" not in plan["without"]), sys.executable]
        if timeout := shutil.which("timeout"):
            life = START + self.limits.seconds + GRACE
            command = [timeout, "--foreground", "--signal=KILL", str(life), *command]
        told, tell = os.pipe()
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, told)
            # The plan goes in as a file: a command line is short, and every user can read it.
            with tempfile.TemporaryFile() as text, os.fdopen(tell, "wb"):
                text.write(json.dumps({**plan, "report": tell}).encode())
                text.seek(0)
                process = subprocess.Popen(
                    [*command, *"-I -B -u -X utf8".split(), confine.__file__],
                    stdin=text,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                    pass_fds=[tell],
                    cwd=self.box,
                    env={**list_variables(self.box), **environment},
                )
            pipes = {told: "report"}
            for name, pipe in (("stdout", process.stdout), ("stderr", process.stderr)):
                if pipe:
                    pipes[stack.enter_context(pipe).fileno()] = name
            stack.callback(self._read_end, told)
            stack.callback(self._end, process)
            self._follow(process, pipes)

    def _follow(self, process: subprocess.Popen[bytes], pipes: dict[int, str]) -> None:
        """Read what it prints until it ends or goes beyond a limit."""
        begun, look = time.monotonic(), 0.0
        until = begun + START
        with selectors.DefaultSelector() as selector:
            for pipe, name in pipes.items():
                os.set_blocking(pipe, False)
                selector.register(pipe, selectors.EVENT_READ, name)
            while not self.verdict and not self._reap(process):
                # A program may close all that it has; then only asking tells whether it runs.
                for key, _ in selector.select(TICK if selector.get_map() else TICK / 10):
                    if self._take(key.fd, key.data) == b"":
                        selector.unregister(key.fileobj)
                now = time.monotonic()
                if not self.report and self._read_report():
                    begun, until = now, now + self.limits.seconds
                if self.report and self.stop.is_set():
                    self.verdict = "because it was stopped"
                elif now >= until:
                    self.verdict = f"after {until - begun:g} s of wall clock"
                elif now >= look:
                    look = now + TICK
                    self._measure()
            for pipe, name in pipes.items():
                while not self.verdict and self._take(pipe, name):
                    pass
        # A short program may be over before this process is given time to hear that it began.
        self._read_report()
        self.seconds = time.monotonic() - begun

    def _take(self, pipe: int, name: str) -> bytes | None:
        """Take what lies in a pipe: None if nothing does, no bytes if nothing ever will."""
        try:
            data = os.read(pipe, 1 << 16)
        except BlockingIOError:
            return None
        into = self.printed[name]
        most = REPORT_BYTES if name == "report" else self.limits.output_bytes
        into += data[: most - len(into) + 1]
        if len(into) > most:
            del into[most:]
            self.verdict = f"because it printed more than {show_bytes(most)} to {name}"
        return data

    def _measure(self) -> None:
        """See whether folder and threads are within their limits."""
        pid = self.report.get("pid")
        used = count = 0
        for size in list_sizes(self.box, pid):
            used, count = used + size, count + 1
            if used > self.limits.folder_bytes:
                most = show_bytes(self.limits.folder_bytes)
                self.verdict = f"because it filled its folder with more than {most}"
                return
            if count > self.limits.files:
                self.verdict = f"because it made more than {self.limits.files} files"
                return
        with contextlib.suppress(OSError):
            if sum(1 for _ in Path(f"/proc/{pid}/task").iterdir()) > THREADS:
                self.verdict = f"because it started more than {THREADS} threads"

    def _reap(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether the process has ended; if so, its status and processor time are taken."""
        if process.returncode is None:
            # Popen.wait would drop the time that it and its children took.
            pid, status, used = os.wait4(process.pid, os.WNOHANG)
            if pid:
                process.returncode = self.status = os.waitstatus_to_exitcode(status)
                self.cpu = used.ru_utime + used.ru_stime
        return process.returncode is not None

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Kill what is left of it, from the inside out, so that each parent reaps its child."""
        pid, until = self.report.get("pid"), time.monotonic() + GRACE
        with contextlib.suppress(ProcessLookupError):
            # A number may be another's by now: only what is in the session is killed.
            if pid and not self._reap(process) and os.getsid(pid) == process.pid:
                os.kill(pid, signal.SIGKILL)
        while pid and not self._reap(process) and time.monotonic() < until:
            time.sleep(TICK / 20)
        if not self._reap(process) or not {"namespaces", "seccomp"} & {
            *self.report.get("applied", ())
        }:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            while not self._reap(process):
                time.sleep(TICK / 20)
            kill_strays(self.box)

    def _read_report(self) -> bool:
        """Take the report's first line, if it has come: the program starts now."""
        line, end, _ = self.printed["report"].partition(b"\n")
        if end:
            self.report = json.loads(line)
        return bool(end)

    def _read_end(self, told: int) -> None:
        """Take the end that the first process of a namespace saw: the report's second line."""
        with contextlib.suppress(OSError, ValueError, TypeError, LookupError):
            while self._take(told, "report"):
                pass
            end = json.loads(self.printed["report"].split(b"\n")[1])
            self.status, self.cpu = int(end["status"]), float(end["cpu"])

    def explain(self) -> str:
        """The end in one sentence."""
        if self.verdict:
            return f"killed {self.verdict}"
        if self.status >= 0:
            return f"exited with status {self.status}"
        if -self.status in (signal.SIGKILL, signal.SIGXCPU):
            if self.cpu > self.limits.cpu_seconds - 0.5:
                return (
                    f"killed because it used up its {self.limits.cpu_seconds} s of processor time"
                )
        try:
            return f"killed by signal {signal.Signals(-self.status).name}"
        except ValueError:
            return f"killed by signal {-self.status}"


@functools.cache
def find_wrapper(namespaces: bool) -> tuple[str, ...]:
    """The command that runs a command with fewer rights than it has, as far as it works here."""
    wrapper: tuple[str, ...] = ()
    steps = [("unshare", UNSHARE)] if namespaces and sys.platform == "linux" else []
    if os.geteuid() == 0:
        steps.append(("setpriv", SETPRIV))
    for name, options in steps:
        longer = (*wrapper, shutil.which(name) or name, *options)
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run([*longer, "true"], check=True, capture_output=True, timeout=START)
            wrapper = longer
    return wrapper
