"""The doctor's look at Jupyter: does a kernel answer, and has the page what widgets need?"""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import paths
from ..errors import ToolchainError
from ..preflight import Check
from .doctor_ask import ask_python
from .jupyter_probe import EXTENSIONS, KERNEL


def check_kernel() -> Check:
    """Whether the kernel of the notebooks starts, answers, and runs in this environment."""
    name = "Jupyter kernel"
    mend = f"run `{sys.executable} -m ipykernel install --sys-prefix`"
    try:
        found = _ask("kernel")
    except ToolchainError as error:
        return Check(name, False, f"Jupyter cannot be asked ({error})", name_setup())
    folder = found["folder"]
    if folder and not is_here(folder):
        mend = f"delete {folder}, which hides this environment's kernel"
    if "error" in found:
        return Check(name, False, f"{KERNEL} in {folder} does not work ({found['error']})", mend)
    if Path(found["prefix"]).resolve() != Path(sys.prefix).resolve():
        runs = f"{KERNEL} in {folder} runs in {found['prefix']}, not in {sys.prefix}"
        return Check(name, False, runs, mend)
    return Check(name, True, f"{KERNEL} in {folder} answers in {found['seconds']:.1f} s")


def check_extensions() -> list[Check]:
    """Whether JupyterLab has what shows widgets and charts; one check, or one for each fault."""
    name = "JupyterLab extensions"
    try:
        found = _ask("extensions")
    except ToolchainError as error:
        return [Check(name, False, f"JupyterLab cannot be asked ({error})", name_setup())]
    if file := found.get("unreadable"):
        stops = f"{file} is not JSON, and JupyterLab does not start with it"
        return [Check(name, False, stops, f"delete {file}")]
    lab, states = f"JupyterLab {found['version']}", found["extensions"]
    faults = [fault for each in EXTENSIONS if (fault := _judge(each, states[each], lab))]
    shown = ", ".join(f"{each} {state['version']}" for each, state in states.items() if state)
    return faults or [Check(name, True, f"{shown}, enabled in {lab}")]


def _judge(name: str, state: dict[str, Any] | None, lab: str) -> Check | None:
    title = f"JupyterLab extension {name}"
    package = EXTENSIONS[name]
    mend = _name_reinstall(package)
    if state is None:
        return Check(title, False, f"{lab} does not find it, {package} brings it", mend)
    folder, version = state["folder"], state["version"]
    if not is_here(folder):
        mend = f"delete {folder}, which hides this environment's"
    if not state["compatible"]:
        return Check(title, False, f"{lab} cannot load its version {version} in {folder}", mend)
    if not state["whole"]:
        return Check(title, False, f"{folder} lacks the script that {lab} loads", mend)
    if not state["enabled"]:
        switch = f"run `{sys.executable} -m jupyter labextension enable {name}`"
        if file := state["disabled_in"]:
            switch = f"take it out of disabledExtensions in {file}"
        return Check(title, False, f"it is disabled in {lab}", switch)
    own = _read_own_version(name)
    if own not in (version, None):
        return Check(title, False, f"{lab} takes version {version} in {folder}, not {own}", mend)
    return None


def _ask(what: str) -> dict[str, Any]:
    """What jupyter_probe finds with the settings that `make lab` gives to JupyterLab."""
    settings = {
        "JUPYTER_PREFER_ENV_PATH": "1",
        "JUPYTER_CONFIG_PATH": str(paths.CHECKOUT / "jupyter"),
    }
    return ask_python(["-m", "qwqlab.course.jupyter_probe", what], settings)


def _read_own_version(name: str) -> str | None:
    """The version of an extension that this environment itself holds; None if it holds none."""
    file = Path(sys.prefix, "share/jupyter/labextensions", name, "package.json")
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_here(folder: str) -> bool:
    """Whether a folder belongs to this environment."""
    return Path(folder).absolute().is_relative_to(Path(sys.prefix).absolute())


def _name_reinstall(package: str) -> str:
    try:
        wanted = f"{package}=={metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return name_setup()
    # --force-reinstall: the package is known as installed, only its files are gone.
    return f"run `{sys.executable} -m pip install --force-reinstall --no-deps {wanted}`"


def name_setup() -> str:
    """What installs packages again: the set-up skips that while its mark is in the environment."""
    mark = Path(sys.prefix) / ".qwqlab"
    return f"delete {mark}, then run `make setup`" if mark.exists() else "run `make setup`"
