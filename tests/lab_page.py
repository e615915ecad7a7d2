"""A notebook in a real JupyterLab, in a real browser, with no network: for the browser tests."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

FOLDERS = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR", "JUPYTERLAB_SETTINGS_DIR",
           "JUPYTERLAB_WORKSPACES_DIR")  # fmt: skip
SETTINGS: dict[str, dict[str, object]] = {
    "apputils-extension/notification": {"fetchNews": "false"},
    # Cells out of sight are drawn too.
    "notebook-extension/tracker": {"windowingMode": "none"},
}
CHROMIUM = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update",
            "--disable-sync"]  # fmt: skip
# Whether a microscope's chart holds its bars.
DRAWN = """() =>
  document.querySelector(".qwqlab-microscope .js-plotly-plot")?.data?.[0]?.y?.length > 0"""
READY = """() => {
  const kernel = window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel;
  return kernel?.connectionStatus === "connected" && kernel.status === "idle";
}"""
PROGRESS = """() => {
  const cells = window.jupyterapp.shell.currentWidget.content.widgets
    .filter(cell => cell.model.type === "code");
  const outputs = cells.flatMap(cell => cell.model.outputs.toJSON());
  return {
    left: cells.filter(cell => !cell.model.executionCount).length,
    errors: outputs.filter(o => o.output_type === "error").map(o => `${o.ename}: ${o.evalue}`),
  };
}"""


BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NO_BROWSER = f"none of {', '.join(BROWSERS)} is on PATH: run `sudo apt-get install chromium`"


def find_chromium() -> Path | None:
    """The first of BROWSERS that is on PATH."""
    return next((Path(path) for path in map(shutil.which, BROWSERS) if path), None)


class LabPage:
    """A page that shows one notebook. outside holds every address it asked for elsewhere."""

    def __init__(self, page: Page, server: str) -> None:
        self.page, self.outside = page, list[str]()
        local = (server, server.replace("http", "ws"), "data:", "blob:")
        page.on(
            "request", lambda r: None if r.url.startswith(local) else self.outside.append(r.url)
        )

    def run_all(self, timeout: float = 300.0) -> None:
        """Run every cell; AssertionError for the first that fails."""
        # A run that is asked for before the kernel answers is dropped.
        self.page.wait_for_function(READY, timeout=60_000)
        self.page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
        until = time.monotonic() + timeout
        while (now := self.page.evaluate(PROGRESS))["left"] and time.monotonic() < until:
            assert not now["errors"], now["errors"]
            time.sleep(0.2)
        assert now == {"left": 0, "errors": []}

    def changes(self, look: Callable[[], Any], do: Callable[[], Any], timeout: float = 10) -> float:
        """Seconds from an action until what is looked at differs."""
        before, started = look(), time.monotonic()
        do()
        while look() == before:
            assert time.monotonic() - started < timeout, f"still {before}"
            time.sleep(0.005)
        return time.monotonic() - started


@contextmanager
def open_notebook(cells: list[dict[str, Any]], folder: Path, chromium: Path) -> Iterator[LabPage]:
    """Start JupyterLab in `folder` with settings of its own, and open these cells in it."""
    root = folder / "root"
    root.mkdir()
    notebook = {
        "cells": cells,
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    (root / "notebook.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    environment = dict(os.environ, **{name: str(folder / name) for name in FOLDERS})
    for name, values in SETTINGS.items():
        path = folder / "JUPYTERLAB_SETTINGS_DIR" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values), encoding="utf-8")
    port, token = free_port(), secrets.token_hex(16)
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
        f"--port={port}", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={root}",
        "--LabApp.expose_app_in_browser=True", "--LabApp.extension_manager=readonly",
        "--KernelManager.transport=ipc",
    ]  # fmt: skip
    # The path of a socket, those of the kernel too, has at most 107 bytes.
    sockets = environment["JUPYTER_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="q")
    with (folder / "jupyter.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        _await_port(port, server)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM)
            page = browser.new_page(viewport={"width": 1500, "height": 1000})
            address = f"http://127.0.0.1:{port}"
            lab = LabPage(page, address)
            page.goto(f"{address}/lab/tree/notebook.ipynb?token={token}")
            yield lab
            browser.close()
    finally:
        server.terminate()
        server.wait(30)
        shutil.rmtree(sockets, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_port(port: int, server: subprocess.Popen[bytes], timeout: float = 60.0) -> None:
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        assert server.poll() is None, "JupyterLab ended by itself"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("JupyterLab did not start")
