"""What Jupyter itself finds here: a kernel that answers, and the extensions of its pages.

A program: `python -m qwqlab.course.jupyter_probe kernel` or `extensions` prints one JSON object.
"""

from __future__ import annotations

import ast
import contextlib
import json
import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import paths
from ..errors import first_lines

KERNEL = "python3"
EXTENSIONS = {
    "@jupyter-widgets/jupyterlab-manager": "jupyterlab_widgets",
    "anywidget": "anywidget",
    "jupyterlab-plotly": "plotly",
}
"""What the notebooks' pages need, and the package that brings each."""

PATIENCE = 60.0
WHERE = "[__import__('sys').prefix, __import__('qwqlab').__file__]"


def ask_kernel() -> dict[str, Any]:
    """The kernelspec's folder, and either what its kernel says of itself or an error.

    Keys: folder; then prefix (the kernel's sys.prefix) and seconds, or error.
    """
    from jupyter_client.kernelspec import KernelSpecManager

    folder = KernelSpecManager().find_kernel_specs().get(KERNEL)
    if folder is None:
        return {"folder": "", "error": f"Jupyter knows no kernel {KERNEL}"}
    started = time.monotonic()
    try:
        prefix = _start_kernel()
    except Exception as error:  # noqa: BLE001 - whatever goes wrong there is the answer
        return {"folder": folder, "error": first_lines(error)}
    return {"folder": folder, "prefix": prefix, "seconds": time.monotonic() - started}


def _start_kernel() -> str:
    """Start the kernel where JupyterLab would, and give its sys.prefix."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        try:
            with _running(log) as client:
                client.wait_for_ready(timeout=PATIENCE)
                reply = client.execute(
                    "", silent=True, user_expressions={"it": WHERE}, reply=True, timeout=PATIENCE
                )
        except RuntimeError as error:  # dead or silent: why, its own last line says
            log.seek(0)
            said = log.read().strip().splitlines()
            raise RuntimeError(said[-1] if said else first_lines(error)) from error
    told = reply["content"].get("user_expressions", {}).get("it", {})
    if told.get("status") != "ok":
        raise RuntimeError(str(told.get("evalue") or "it is not a kernel of Python"))
    return str(ast.literal_eval(told["data"]["text/plain"])[0])


@contextlib.contextmanager
def _running(log: Any) -> Iterator[Any]:
    from jupyter_client.manager import KernelManager

    notebooks = paths.notebooks_dir()
    manager = KernelManager(kernel_name=KERNEL)
    manager.start_kernel(
        cwd=str(notebooks if notebooks.is_dir() else Path.cwd()), stdout=log, stderr=log
    )
    try:
        client = manager.blocking_client()
        client.start_channels()
        try:
            yield client
        finally:
            client.stop_channels()
    finally:
        manager.shutdown_kernel(now=True)


def ask_extensions() -> dict[str, Any]:
    """JupyterLab's version, and what it makes of each of EXTENSIONS.

    Of one that it finds: version, folder, whole (its script is there), compatible, enabled, and
    disabled_in, the file that switches it off; of another None. Where a file that JupyterLab reads
    at its start is no JSON, its path alone, as unreadable.
    """
    from jupyter_core.paths import jupyter_path
    from jupyterlab import commands

    quiet = logging.getLogger("qwqlab.course.jupyter_probe")
    quiet.disabled = True
    options = commands.AppOptions(logger=quiet, labextensions_path=jupyter_path("labextensions"))
    try:
        info = commands.get_app_info(app_options=options)
    except ValueError:
        return {"unreadable": _find_unreadable()}
    known = info["federated_extensions"]
    states = {
        name: _describe(name, known[name], info) if name in known else None for name in EXTENSIONS
    }
    return {"version": info["version"], "extensions": states}


def _describe(name: str, found: dict[str, Any], info: dict[str, Any]) -> dict[str, Any]:
    # What `jupyter labextension list` prints, asked of the functions below it: its public
    # `check_extension` knows no extension that comes in a package.
    from jupyterlab.commands import _is_disabled, _validate_compatibility

    folder = Path(found["ext_path"])
    script = found["jupyterlab"].get("_build", {}).get("load")
    plugins = [key for key in info["disabled"] if key.partition(":")[0] == name]
    return {
        "version": found["version"],
        "folder": str(folder),
        "whole": bool(script) and (folder / script).is_file(),
        "compatible": not _validate_compatibility(name, found["dependencies"], info["core_data"]),
        "enabled": not plugins and not _is_disabled(name, info["disabled"]),
        "disabled_in": _find_switch(name),
    }


def _find_switch(name: str) -> str:
    """The first of JupyterLab's files of page settings that names the extension."""
    from jupyter_core.paths import jupyter_config_path

    for folder in jupyter_config_path():
        file = Path(folder) / "labconfig" / "page_config.json"
        with contextlib.suppress(OSError):
            if name in file.read_text(encoding="utf-8", errors="replace"):
                return str(file)
    return ""


def _find_unreadable() -> str:
    from jupyter_core.paths import jupyter_path

    for folder in jupyter_path("labextensions"):
        for file in Path(folder).glob("**/package.json"):
            try:
                json.loads(file.read_text(encoding="utf-8"))
            except ValueError:
                return str(file)
    return "a package.json of an extension"


if __name__ == "__main__":
    print(json.dumps({"kernel": ask_kernel, "extensions": ask_extensions}[sys.argv[1]]()))
