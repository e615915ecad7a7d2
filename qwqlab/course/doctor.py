"""Check everything that the lab needs, and tell the reader how to fix what fails.

Nothing leaves the machine, and whatever could crash runs in a process of its own. At its top this
module imports only the standard library, so that a missing package is a line of the report.
"""

from __future__ import annotations

import ast
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import files, paths, preflight
from ..errors import QwqlabError, ToolchainError, explain_exit, first_lines
from ..preflight import Check

if TYPE_CHECKING:
    from packaging.requirements import Requirement

    from ..models import Entry

FREE_GB = 1.0
"""Room for a ladder of quants of the embedded model, and for runs."""

MEMORY_GB, FREE_MEMORY_GB = 3.5, 1.5
"""Enough for most notebooks, and for the smallest."""

EXTENSIONS = {
    "@jupyter-widgets/jupyterlab-manager": "jupyterlab_widgets",
    "anywidget": "anywidget",
    "jupyterlab-plotly": "plotly",
}
"""The JupyterLab extensions that the notebooks use, and the package of each."""

KERNEL = "python3"
PATIENCE = 120.0
"""Seconds, for a machine that is busy with something else; each question takes about two."""

_SHOWN = {
    "": ("jupyterlab", "ipywidgets", "plotly", "transformers"),
    "train": ("torch", "peft", "trl", "bitsandbytes"),
}


def run_checks() -> list[Check]:
    """Return all checks, each after those that it rests on; nothing is raised."""
    checks: dict[str, Callable[[], Check | Sequence[Check]]] = {
        "Python": preflight.check_python,
        "Compilers": preflight.check_compilers,
        "Python packages": check_packages,
        "Packages for fine-tuning": lambda: check_packages("train"),
        "llama.cpp": check_tools,
        "llama.cpp's bindings": check_bindings,
        "Model files": check_files,
        "An answer": check_answer,
        "Jupyter kernel": check_kernel,
        "JupyterLab extensions": check_extensions,
        "Disk": lambda: preflight.check_disk(paths.build_dir(), FREE_GB),
        "Memory": check_memory,
        "CPU": check_cpu,
        "GPU": check_gpu,
        "Sandbox": check_sandbox,
    }
    # Most of them wait for a program that they have started.
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(_survive, checks, checks.values())
        return [check for each in found for check in each]


def report_checks(checks: Sequence[Check]) -> str:
    """Return a line for each check, marked [OK] or [FAIL], and one with the count.

    >>> print(report_checks([Check("make", False, "no make", "run `apt-get install make`")]))
    [FAIL] make: no make: run `apt-get install make`
    1 of 1 checks failed.
    """
    lines = [f"[{'OK' if check.ok else 'FAIL'}] {check.sentence()}" for check in checks]
    failed = sum(not check.ok for check in checks)
    end = f"{failed} of {len(checks)} checks failed." if failed else "Everything is there."
    return "\n".join([*lines, end])


def checks_to_dict(checks: Sequence[Check]) -> dict[str, Any]:
    """Return JSON-ready values: each check under "checks", and under "ok" whether all passed.

    >>> checks_to_dict([Check("make", True, "/usr/bin/make", "run something")])["checks"]
    [{'name': 'make', 'ok': True, 'detail': '/usr/bin/make', 'remedy': ''}]
    """
    each = [check._replace(remedy="" if check.ok else check.remedy)._asdict() for check in checks]
    return {"ok": all(check.ok for check in checks), "checks": each}


def check_packages(extra: str = "") -> Check:
    """Check that each package of pyproject.toml is installed, in a version that it allows.

    extra: "train" for the packages of fine-tuning, "" for the others.
    """
    from packaging.requirements import Requirement

    name = "Packages for fine-tuning" if extra else "Python packages"
    asked = [Requirement(line) for line in metadata.requires("qwqlab") or []]
    needed = [one for one in asked if _is_needed(one, extra)]
    wrong = [fault for one in needed if (fault := _find_fault(one))]
    if wrong:
        return Check(name, False, "; ".join(wrong), _name_setup())
    shown = [f"{one} {metadata.version(one)}" for one in _SHOWN[extra]]
    return Check(name, True, f"{len(needed)} as pyproject.toml asks, {', '.join(shown)}")


def check_tools() -> Check:
    """Check that llama.cpp's programs are built, and show which build it is."""
    from ..llamacpp import TARGETS, find_build, tool

    name = "llama.cpp"
    try:
        llama = find_build()
        for target in TARGETS:
            if target != "llama":  # a library
                tool(target)
    except QwqlabError as error:
        return Check(name, False, str(error))
    return Check(name, True, f"{llama.version}, {llama.compiler}, {llama.backend}, in {llama.bin}")


def check_bindings() -> Check:
    """Check that llama-cpp-python loads the library of the tools, and was written for it."""
    from ..llamacpp import SDIST, find_build

    name = "llama.cpp's bindings"
    try:
        version = find_build().version
        found = _ask(probe_bindings)
    except QwqlabError as error:
        return Check(name, False, f"they do not load ({error})", _name_setup())
    detail = f"llama-cpp-python {found['bindings']} with {found['library']} {found['version']}"
    if SDIST.commit in version:
        return Check(name, True, detail)
    detail += f", written for commit {SDIST.commit} and not for {version}"
    remedy = "unset QWQLAB_LLAMA_CPP and QWQLAB_LLAMA_CPP_BUILD to use the lab's own build"
    return Check(name, False, detail, remedy)


def probe_bindings() -> dict[str, Any]:
    """Return the versions of the bindings and of the library that they load."""
    from ..llamacpp import point_bindings

    point_bindings()
    import llama_cpp

    low: Any = llama_cpp.llama_cpp
    return {
        "bindings": llama_cpp.__version__,
        "library": low._lib._name,
        "version": low.llama_version().decode(),
    }


def check_files() -> list[Check]:
    """Check, byte for byte, the two model files that everything needs."""
    from ..models import EMBEDDED, QWQ_RANKS

    return [
        _check_file("Embedded model", EMBEDDED),
        _check_file("QwQ-32B's vocabulary", QWQ_RANKS),
    ]


def _check_file(name: str, entry: Entry) -> Check:
    path = paths.models_dir() / entry.filename
    remedy = f"run `qwqlab fetch {entry.name}`"
    try:
        found = files.sha256_of(path)
    except QwqlabError as error:
        return Check(name, False, str(error), remedy)
    if found != entry.sha256:
        wrong = f"{path} has sha256 {found}, not {entry.sha256}"
        return Check(name, False, wrong, f"delete it, then {remedy}")
    return Check(name, True, f"{path.name}, {entry.n_bytes / 1e6:.1f} MB, sha256 as catalogued")


def check_answer() -> Check:
    """Check that the embedded model writes a few tokens on this machine."""
    name = "An answer"
    try:
        found = _ask(probe_answer)
    except QwqlabError as error:
        remedy = "fix what fails above; if nothing does, run `make clean`, then `make setup`"
        return Check(name, False, f"the embedded model gives none ({error})", remedy)
    told = f"the embedded model wrote {found['n_tokens']} tokens in {found['seconds']:.1f} s"
    return Check(name, True, told)


def probe_answer() -> dict[str, Any]:
    """Return how many tokens a model wrote, as the notebooks have it write, and in what time."""
    from ..models import EMBEDDED
    from ..sampling import Engine

    prompt = "A prompt that is long enough to be read as a batch of tokens. " * 4
    with Engine(paths.models_dir() / EMBEDDED.filename) as engine:
        run = engine.generate(prompt, n_predict=8)
    return {"n_tokens": len(run.tokens), "seconds": run.seconds}


def check_kernel() -> Check:
    """Check that the notebooks' kernel starts, answers, and runs in this environment."""
    name = "Jupyter kernel"
    remedy = (
        f"run `{sys.executable} -m ipykernel install --sys-prefix`; if that does not help, "
        f"delete the kernel {KERNEL} that `{sys.executable} -m jupyter kernelspec list` shows"
    )
    try:
        found = _ask(probe_kernel)
    except ToolchainError as error:
        return Check(name, False, f"{KERNEL} does not work ({error})", remedy)
    if Path(found["prefix"]).resolve() != Path(sys.prefix).resolve():
        runs = f"{KERNEL} in {found['folder']} runs in {found['prefix']}, not in {sys.prefix}"
        return Check(name, False, runs, remedy)
    return Check(name, True, f"{KERNEL} in {found['folder']} answers in {found['seconds']:.1f} s")


def probe_kernel() -> dict[str, Any]:
    """Return the kernel's folder, its sys.prefix, and the seconds until it answered."""
    from jupyter_client.manager import start_new_kernel

    started = time.monotonic()
    manager, client = start_new_kernel(kernel_name=KERNEL, cwd=str(paths.CHECKOUT))
    try:
        asked = {"prefix": "sys.prefix"}
        reply = client.execute("import sys, qwqlab", user_expressions=asked, reply=True, timeout=60)
        told = reply["content"]
        if told["status"] != "ok":
            raise RuntimeError(told["evalue"])
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    return {
        "folder": manager.kernel_spec.resource_dir if manager.kernel_spec else "",
        "prefix": ast.literal_eval(told["user_expressions"]["prefix"]["data"]["text/plain"]),
        "seconds": time.monotonic() - started,
    }


def check_extensions() -> Check:
    """Check that JupyterLab finds, can load and has enabled what shows widgets and charts."""
    name = "JupyterLab extensions"
    program = f"{sys.executable} -m jupyterlab.labextensions"
    try:
        done = run_own_python("-m", "jupyterlab.labextensions", "list")
    except ToolchainError as error:
        return Check(name, False, f"`{program} list` fails ({error})", _name_setup())
    said = re.sub(r"\x1b\[\d*m", "", done.stdout + done.stderr)
    listed, _, disabled = said.partition("Disabled extensions")
    wrong = [
        one
        for one in EXTENSIONS
        if not re.search(rf"(?m)^\s*{one} v\S+ enabled OK", listed) or one in disabled
    ]
    if not wrong:
        return Check(name, True, f"{', '.join(EXTENSIONS)}, enabled in {said.splitlines()[0]}")
    return Check(
        name,
        False,
        f"{', '.join(wrong)}: not found, disabled, or not for this JupyterLab",
        f"run `{sys.executable} -m pip install --force-reinstall --no-deps "
        f"-c {paths.CHECKOUT / 'constraints.txt'} {' '.join(EXTENSIONS[one] for one in wrong)}`; "
        f"if that does not help, `{program} list` shows which folder hides it and what is disabled",
    )


def check_memory() -> Check:
    """Check that this machine has the memory for most notebooks, and enough of it free now."""
    import psutil

    from .notebooks import read_course

    has, free = preflight.count_memory() / 1e9, psutil.virtual_memory().available / 1e9
    detail = f"{has:.1f} GB, of which {free:.1f} GB are free"
    if free < FREE_MEMORY_GB:
        remedy = "close other programs, and in JupyterLab use Kernel, Shut Down All Kernels"
        return Check("Memory", False, f"{detail} and a notebook takes {FREE_MEMORY_GB}", remedy)
    large = [each.number for each in read_course() if each.contract.memory_gb > has]
    if large:
        detail += f"; too little for notebook{'s' * (len(large) > 1)} {', '.join(large)}"
    remedy = f"use a machine with {MEMORY_GB} GB or more, or keep to the other notebooks"
    return Check("Memory", has >= MEMORY_GB, detail, remedy)


def check_cpu() -> Check:
    """Show which CPU this is, for a report of a problem; this cannot fail."""
    named = None
    if (about := Path("/proc/cpuinfo")).exists():
        named = re.search(r"(?m)^model name\s*:\s*(.+)$", about.read_text(encoding="utf-8"))
    cpu = named[1] if named else platform.processor() or platform.machine()
    return Check("CPU", True, f"{preflight.count_cpus()} threads, {cpu}")


def check_gpu() -> Check:
    """Show which NVIDIA GPU there is; the lab needs none, so this cannot fail."""
    from ..llamacpp import find_build, find_nvidia_gpu

    gpu = find_nvidia_gpu()
    if gpu is None:
        detail = "none that nvidia-smi lists, and none is needed: cells that want one are skipped"
        return Check("GPU", True, detail)
    try:
        backend = find_build().backend
    except QwqlabError:
        backend = "unknown"
    hint = "" if backend != "CPU" else "; `CMAKE_ARGS=-DGGML_CUDA=ON make setup` builds for it"
    return Check("GPU", True, f"{gpu}; llama.cpp is a {backend} build{hint}")


def check_sandbox() -> Check:
    """Check how well a program that a model wrote can be isolated; the grader asks for "strong"."""
    from ..sandbox import probe

    try:
        isolation = probe()
    except QwqlabError as error:
        return Check("Sandbox", False, str(error), "run `make setup`")
    how = f"{isolation.level}, by {', '.join(isolation.applied)}"
    if isolation.level != "strong":
        how += "; here `qwqlab grade` runs nothing unless you pass --isolation"
    return Check("Sandbox", True, how)


def _survive(name: str, check: Callable[[], Check | Sequence[Check]]) -> Sequence[Check]:
    """Return what a check finds; a check that raises has failed."""
    try:
        found = check()
    except Exception as error:  # noqa: BLE001 - a machine can be broken in any way
        detail = f"it cannot be checked ({type(error).__name__}: {first_lines(error)})"
        return [Check(name, False, detail, f"fix what is named there, or {_name_setup()}")]
    return [found] if isinstance(found, Check) else found


def _ask(probe: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Call a function of this module in a process of its own, and return what it returns.

    Raise ToolchainError with the last line of its stderr if it fails or is too slow.
    """
    code = f"import json, {__name__} as d; print(); print(json.dumps(d.{probe.__name__}()))"
    found: dict[str, Any] = json.loads(run_own_python("-c", code).stdout.splitlines()[-1])
    return found


def run_own_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this environment's Python, with the settings that `make lab` gives to JupyterLab."""
    settings = {
        "JUPYTER_PREFER_ENV_PATH": "1",
        "JUPYTER_CONFIG_PATH": str(paths.CHECKOUT / "jupyter"),
    }
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            cwd=paths.CHECKOUT,
            env={**os.environ, **settings},
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ToolchainError(f"no answer within {PATIENCE:g} seconds") from error
    if done.returncode < 0:
        raise ToolchainError(f"it {explain_exit(done.returncode)}")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [explain_exit(done.returncode)])[-1]
        raise ToolchainError(last.strip()[:300])
    return done


def _is_needed(one: Requirement, extra: str) -> bool:
    if one.marker is None or one.marker.evaluate({"extra": ""}):
        return not extra
    return one.marker.evaluate({"extra": extra})


def _find_fault(needed: Requirement) -> str | None:
    try:
        found = metadata.version(needed.name)
    except metadata.PackageNotFoundError:
        return f"{needed.name} is not installed"
    if needed.specifier.contains(found, prereleases=True):
        return None
    return f"{needed.name} is {found}, not {needed.specifier}"


def _name_setup() -> str:
    """Return how to install packages again; the set-up skips that while its mark is there."""
    mark = Path(sys.prefix) / ".qwqlab"
    return f"delete {mark}, then run `make setup`" if mark.exists() else "run `make setup`"
