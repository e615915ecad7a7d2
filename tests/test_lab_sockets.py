"""The kernels of `make lab` talk to JupyterLab through sockets that are their owner's alone."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from lab_page import FOLDERS, free_port

from qwqlab.paths import CHECKOUT


class Lab:
    """A JupyterLab with the lab's settings, and without the reader's."""

    def __init__(self, folder: Path, runtime: str) -> None:
        self.port, self.token = free_port(), secrets.token_hex(16)
        own = {name: str(folder / name) for name in FOLDERS}
        environment = {
            **os.environ,
            **own,
            "JUPYTER_RUNTIME_DIR": runtime,
            "JUPYTER_CONFIG_PATH": str(CHECKOUT / "jupyter"),
        }
        command = [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
            *("--ip=127.0.0.1", f"--port={self.port}", f"--IdentityProvider.token={self.token}"),
        ]
        self.log = folder / "jupyter.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def ask(self, path: str, values: object = None) -> Any:
        """Ask the server's API; wait until it is there."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/{path}",
            None if values is None else json.dumps(values).encode(),
            {"Authorization": f"token {self.token}"},
        )
        until = time.monotonic() + 60
        while True:
            try:
                return json.loads(urllib.request.urlopen(request, timeout=30).read())
            except urllib.error.HTTPError:
                raise
            except OSError:
                assert self.process.poll() is None, self.log.read_text()
                assert time.monotonic() < until, self.log.read_text()
                time.sleep(0.1)

    def start_kernel(self) -> tuple[psutil.Process, Path]:
        """A new kernel's process and the file that says how to reach it."""
        self.ask("status")
        kernel = self.ask("kernels", {"name": "python3"})["id"]
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # JupyterLab asks other programs for their version
                for argument in child.cmdline():
                    if kernel in argument:
                        return child, Path(argument)
        raise AssertionError(self.log.read_text())


def find_ports(process: psutil.Process) -> set[int]:
    return {c.laddr.port for c in process.net_connections("inet") if c.status == "LISTEN"}


@pytest.fixture(params=["short", pytest.param("long", marks=pytest.mark.nightly)])
def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Jupyter's folder for sockets; the name of a socket has at most 107 bytes."""
    if request.param == "long":
        yield str(tmp_path / ("x" * 100) / "runtime")
        return
    with tempfile.TemporaryDirectory(prefix="q", dir="/tmp") as folder:
        yield folder


def test_a_kernel_of_the_lab_listens_to_its_owner_alone(runtime: str, tmp_path: Path) -> None:
    lab = Lab(tmp_path, runtime)
    try:
        process, file = lab.start_kernel()
        client = BlockingKernelClient(connection_file=str(file))
        client.load_connection_file()
        assert client.transport == "ipc"
        client.start_channels(hb=False)  # a busy machine misses beats
        client.wait_for_ready(timeout=60)
        reply = client.execute_interactive(
            "from ipykernel.kernelapp import IPKernelApp",
            user_expressions={"port": "IPKernelApp.instance().iopub_thread._pipe_port"},
            timeout=60,
        )
        # ipykernel's own: it takes what forked children print, with a secret, and sends nothing.
        pipe = reply["content"]["user_expressions"]["port"]["data"]["text/plain"]
        client.stop_channels()
        assert find_ports(process) == {int(pipe)}
        assert find_ports(psutil.Process(lab.process.pid)) == {lab.port}
        assert file.parent.stat().st_mode & 0o077 == 0
        assert (str(file.parent) == runtime) == (len(runtime) < 50)
    finally:
        lab.process.terminate()
        lab.process.wait()
    assert len(runtime) < 50 or not file.parent.exists()
