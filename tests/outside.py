"""Python run outside this process: in a notebook's kernel, on a small disk, on a read-only one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from queue import Empty
from typing import Any

from jupyter_client.manager import KernelManager

from qwqlab.llamacpp import find_build

CHECKOUT = Path(__file__).resolve().parent.parent


def environment(**more: str) -> dict[str, str]:
    """What a process needs to use this lab's code, its build of llama.cpp, and its tests."""
    kept = {name: value for name, value in os.environ.items() if name != "QWQLAB_HOME"}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "tests")]),
        "QWQLAB_LLAMA_CPP_BUILD": str(find_build().bin),
        **more,
    }


def run_python(
    code: str, *args: str | Path, env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, with its arguments in sys.argv."""
    command = [sys.executable, "-c", code, *map(str, args)]
    return _run(command, dict(env or environment()), **options)


def run_mounted(
    mount: str, code: str, *args: str | Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run code in a process that sees other disks: `mount` is a shell's line that mounts them."""
    command = ["unshare", *_rights(), "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh"]
    command += [sys.executable, "-c", code, *map(str, args)]
    return _run(command, dict(env or environment()))


def _rights() -> list[str]:
    return [] if os.geteuid() == 0 else ["--map-root-user"]


def can_mount() -> bool:
    """Whether a process here can have disks of its own."""
    if shutil.which("unshare") is None:
        return False
    probe = ["unshare", *_rights(), "--mount", "sh", "-c", "mount -t tmpfs none /mnt"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def _run(
    command: list[str], env: dict[str, str], **options: Any
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=env,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        encoding="utf-8",
        errors="surrogateescape",
        check=False,
        **options,
    )


class Kernel:
    """A Jupyter kernel as a notebook has one."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._manager = KernelManager(kernel_name="python3")
        self._manager.start_kernel(env=dict(env))
        self._client = self._manager.client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=120)

    def execute(self, code: str) -> Iterator[str]:
        """Run a cell, and give each line that it prints; AssertionError if it raises."""
        asked = self._client.execute(code)
        text = ""
        while True:
            try:
                message = self._client.get_iopub_msg(timeout=1)
            except Empty:
                assert self._manager.is_alive(), "the kernel has died"
                continue
            if message["parent_header"].get("msg_id") != asked:
                continue
            kind, content = message["msg_type"], message["content"]
            assert kind != "error", "\n".join(content["traceback"])
            if kind == "stream" and content["name"] == "stdout":
                *lines, text = (text + content["text"]).split("\n")
                yield from lines
            if kind == "status" and content["execution_state"] == "idle":
                return

    def kill(self) -> None:
        """End it as the system does for want of memory: at once."""
        provisioner: Any = self._manager.provisioner
        os.kill(provisioner.pid, signal.SIGKILL)

    def close(self) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)


@contextmanager
def open_kernel(**more: str) -> Iterator[Kernel]:
    """A kernel that is gone at the end."""
    kernel = Kernel(environment(**more))
    try:
        yield kernel
    finally:
        kernel.close()
