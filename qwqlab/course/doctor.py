"""Check everything that the lab needs, and tell the reader how to fix what fails.

Nothing leaves the machine, and whatever could crash runs in a process of its own. What this module
imports at its top needs only the standard library, so that a missing package is a line of the
report.
"""

from __future__ import annotations

import ast
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import files, paths, preflight
from ..errors import QwqlabError, ToolchainError, explain_exit, first_lines, last_lines
from ..llamacpp import SDIST, TARGETS, capture, find_build, find_nvidia_gpu, list_devices, tool
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


class Fault(QwqlabError):
    """What a check found to be wrong, with a remedy for just that."""

    def __init__(self, detail: str, remedy: str) -> None:
        super().__init__(detail)
        self.remedy = remedy


CHECKS: dict[str, Callable[[], Check]] = {}
"""All checks of this module, each after those that it rests on."""


def check(name: str, remedy: str = "") -> Callable[[Callable[[], str]], Callable[[], Check]]:
    """Return a decorator that makes a check of a function, which returns what it found.

    The check fails if the function raises: with the remedy of a Fault, or else with this one.
    """

    def make(look: Callable[[], str]) -> Callable[[], Check]:
        def run() -> Check:
            try:
                return Check(name, True, look())
            except QwqlabError as error:
                return Check(name, False, str(error), getattr(error, "remedy", remedy))
            except Exception as error:  # noqa: BLE001 - a machine can be broken in any way
                detail = f"it cannot be checked ({type(error).__name__}: {first_lines(error)})"
                return Check(name, False, detail, f"fix what is named there, or {_name_setup()}")

        CHECKS[name] = run
        return run

    return make


def run_checks() -> list[Check]:
    """Return all checks, those of the set-up first; nothing is raised."""
    machine = [preflight.check_python(), *preflight.check_compilers()]
    machine.append(preflight.check_disk(paths.build_dir(), FREE_GB))
    # Most of the others wait for a program that they have started.
    with ThreadPoolExecutor(4) as pool:
        return machine + list(pool.map(lambda run: run(), CHECKS.values()))


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


@check("Python packages")
def check_packages() -> str:
    """Check that each package of pyproject.toml is installed, in a version that it allows."""
    return _compare_packages("")


@check("Packages for fine-tuning")
def check_training_packages() -> str:
    """Check the same of the extra "train"."""
    return _compare_packages("train")


def _compare_packages(extra: str) -> str:
    from packaging.requirements import Requirement

    asked = [Requirement(line) for line in metadata.requires("qwqlab") or []]
    needed = [one for one in asked if _is_needed(one, extra)]
    wrong = [fault for one in needed if (fault := _find_fault(one))]
    if wrong:
        raise Fault("; ".join(wrong), _name_setup())
    shown = [f"{one} {metadata.version(one)}" for one in _SHOWN[extra]]
    return f"{len(needed)} as pyproject.toml asks, {', '.join(shown)}"


@check("llama.cpp")
def check_tools() -> str:
    """Check that llama.cpp's programs are built, from the source that the bindings belong to."""
    llama = find_build()
    for target in TARGETS:
        if target != "llama":  # a library
            tool(target)
    if SDIST.commit not in llama.version:
        raise Fault(
            f"{llama.version}, but the bindings were written for commit {SDIST.commit}",
            "unset QWQLAB_LLAMA_CPP and QWQLAB_LLAMA_CPP_BUILD to use the lab's own build",
        )
    return f"{llama.version}, {llama.compiler}, {llama.backend}, in {llama.bin}"


@check("Embedded model")
def check_model() -> str:
    """Check the model that everything needs, byte for byte."""
    from ..models import EMBEDDED

    return _compare_file(EMBEDDED)


@check("QwQ-32B's vocabulary")
def check_vocabulary() -> str:
    """Check the other file that everything needs."""
    from ..models import QWQ_RANKS

    return _compare_file(QWQ_RANKS)


def _compare_file(entry: Entry) -> str:
    path = paths.models_dir() / entry.filename
    remedy = f"run `qwqlab fetch {entry.name}`"
    try:
        found = files.sha256_of(path)
    except QwqlabError as error:
        raise Fault(str(error), remedy) from error
    if found != entry.sha256:
        wrong = f"{path} has sha256 {found}, not {entry.sha256}"
        raise Fault(wrong, f"delete it, then {remedy}")
    return f"{path.name}, {entry.n_bytes / 1e6:.1f} MB, sha256 as catalogued"


@check("An answer", "fix what fails above; if nothing does, `make clean`, then `make setup`")
def check_answer() -> str:
    """Check that the bindings load the build, and that the embedded model writes with them."""
    found = _ask(probe_answer)
    wrote = f"the embedded model wrote {found['n_tokens']} tokens in {found['seconds']:.1f} s"
    return f"{wrote}, by llama-cpp-python {found['bindings']} with {found['library']}"


def probe_answer() -> dict[str, Any]:
    """Return how many tokens a model wrote, as the notebooks have it write, in what time and by
    which library."""
    from ..llamacpp import C
    from ..models import EMBEDDED
    from ..sampling import Engine

    prompt = "A prompt that is long enough to be read as a batch of tokens. " * 4
    with Engine(paths.models_dir() / EMBEDDED.filename) as engine:
        run = engine.generate(prompt, n_predict=8)
    return {
        "n_tokens": len(run.tokens),
        "seconds": run.seconds,
        "bindings": metadata.version(SDIST.package),
        "library": C._lib._name,
    }


@check("The notebooks' model", "unset QWQLAB_MODEL, or set it to another model or file")
def check_choice() -> str:
    """Show the model that notebooks 00 and 03 to 06 use, and check that its file can be read."""
    from ..models import choose_model, inspect, model_path

    named = bool(os.environ.get("QWQLAB_MODEL"))
    name = choose_model() if named else _ask(probe_choice)["name"]
    inspect(model_path(name))
    return f"{name}, {'which QWQLAB_MODEL names' if named else 'the best that is here and fits'}"


def probe_choice() -> dict[str, Any]:
    """Return the model that fits best; to find that out loads llama.cpp's drivers."""
    from ..models import choose_model

    return {"name": choose_model()}


@check(
    "Jupyter kernel",
    f"run `{sys.executable} -m ipykernel install --sys-prefix`; if that does not help, delete the "
    f"kernel {KERNEL} that `{sys.executable} -m jupyter kernelspec list` shows",
)
def check_kernel() -> str:
    """Check that the notebooks' kernel starts, answers, and runs in this environment."""
    found = _ask(probe_kernel)
    where = f"{KERNEL} in {found['folder']}"
    if Path(found["prefix"]).resolve() != Path(sys.prefix).resolve():
        raise ToolchainError(f"{where} runs in {found['prefix']}, not in {sys.prefix}")
    return f"{where} answers in {found['seconds']:.1f} s"


def probe_kernel() -> dict[str, Any]:
    """Return the kernel's folder, its sys.prefix, and the seconds until it answered."""
    from jupyter_client.kernelspec import get_kernel_spec
    from jupyter_client.manager import run_kernel

    started, asked = time.monotonic(), {"prefix": "sys.prefix"}
    with run_kernel(kernel_name=KERNEL) as client:
        kernel: Any = client  # a blocking one, which its annotation does not say
        reply = kernel.execute("import sys, qwqlab", user_expressions=asked, reply=True, timeout=60)
        told, seconds = reply["content"], time.monotonic() - started
    if told["status"] != "ok":
        raise RuntimeError(told["evalue"])
    return {
        "folder": get_kernel_spec(KERNEL).resource_dir,
        "prefix": ast.literal_eval(told["user_expressions"]["prefix"]["data"]["text/plain"]),
        "seconds": seconds,
    }


@check("JupyterLab extensions")
def check_extensions() -> str:
    """Check that JupyterLab finds, can load and has enabled what shows widgets and charts."""
    done = run_own_python("-m", "jupyterlab.labextensions", "list")
    said = re.sub(r"\x1b\[\d*m", "", done.stdout + done.stderr)
    listed, _, disabled = said.partition("Disabled extensions")
    wrong = [
        one
        for one in EXTENSIONS
        if not re.search(rf"(?m)^\s*{one} v\S+ enabled OK", listed) or one in disabled
    ]
    if not wrong:
        return f"{', '.join(EXTENSIONS)}, enabled in {said.splitlines()[0]}"
    raise Fault(
        f"{', '.join(wrong)}: not found, disabled, or not for this JupyterLab",
        f"run `{sys.executable} -m pip install --force-reinstall --no-deps "
        f"-c {paths.CHECKOUT / 'constraints.txt'} {' '.join(EXTENSIONS[one] for one in wrong)}`; "
        f"if that does not help, `{sys.executable} -m jupyterlab.labextensions list` shows which "
        "folder hides it and what is disabled",
    )


@check("Memory", f"use a machine with {MEMORY_GB} GB or more, or keep to the other notebooks")
def check_memory() -> str:
    """Check that this machine has the memory for most notebooks, and enough of it free now."""
    import psutil

    from .notebooks import read_course

    has, free = preflight.count_memory() / 1e9, psutil.virtual_memory().available / 1e9
    detail = f"{has:.1f} GB, of which {free:.1f} GB are free"
    if free < FREE_MEMORY_GB:
        remedy = "close other programs, and in JupyterLab use Kernel, Shut Down All Kernels"
        raise Fault(f"{detail} and a notebook takes {FREE_MEMORY_GB}", remedy)
    large = [each.number for each in read_course() if each.contract.memory_gb > has]
    if large:
        detail += f"; too little for notebook{'s' * (len(large) > 1)} {', '.join(large)}"
    if has < MEMORY_GB:
        raise QwqlabError(detail)
    return detail


@check("CPU")
def check_cpu() -> str:
    """Show which CPU this is, for a report of a problem; this cannot fail."""
    named = None
    if (about := Path("/proc/cpuinfo")).exists():
        named = re.search(r"(?m)^model name\s*:\s*(.+)$", about.read_text(encoding="utf-8"))
    cpu = named[1] if named else platform.processor() or platform.machine()
    return f"{preflight.count_cpus()} threads, {cpu}"


@check("GPU")
def check_gpu() -> str:
    """Show the GPUs that llama.cpp computes on, and their memory; none is needed.

    One that it was not built for is named too.
    """
    try:
        devices = _ask(probe_devices)["devices"]
    except ToolchainError:  # told by the checks above
        devices = []
    if devices:
        return describe_devices(devices)
    gpu = find_nvidia_gpu()
    if gpu is None:
        return "none that nvidia-smi lists, and none is needed: cells that want one are skipped"
    backend = find_build().backend
    hint = "" if backend != "CPU" else "; `CMAKE_ARGS=-DGGML_CUDA=ON make setup` builds for it"
    return f"{gpu}; llama.cpp is a {backend} build{hint}"


def probe_devices() -> dict[str, Any]:
    """Return the devices of llama.cpp: name, description, and bytes of memory, free and in all."""
    return {"devices": [asdict(device) for device in list_devices()]}


def describe_devices(devices: Sequence[dict[str, Any]]) -> str:
    """Return each device with its memory, and how much of QwQ-32B fits on them together."""
    from ..models import lookup, place_layers

    each = [
        f"{device['description']} ({device['name']}), {device['total'] / 1e9:.1f} GB of memory, of "
        f"which {device['free'] / 1e9:.1f} GB are free"
        for device in devices
    ]
    entry, n_ctx = lookup("QwQ-32B:Q4_K_M"), 16_384
    fits = place_layers(entry, n_ctx, sum(device["free"] for device in devices)).n_gpu_layers
    n_layers = entry.architecture.n_layers + 1
    each.append(f"{fits} of {n_layers} layers of {entry.name} fit, with {n_ctx:,} tokens")
    return "; ".join(each)


@check("Sandbox", "run `make setup`")
def check_sandbox() -> str:
    """Check how well a program that a model wrote can be isolated; the grader asks for "strong"."""
    from ..sandbox import probe

    isolation = probe()
    how = f"{isolation.level}, by {', '.join(isolation.applied)}"
    if isolation.level != "strong":
        how += "; here `qwqlab grade` runs nothing unless you pass --isolation"
    return how


def _ask(probe: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Call a function of this module in a process of its own, and return what it returns."""
    code = f"import json, {__name__} as d; print(); print(json.dumps(d.{probe.__name__}()))"
    found: dict[str, Any] = json.loads(run_own_python("-c", code).stdout.splitlines()[-1])
    return found


def run_own_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this environment's Python, with the settings that `make lab` gives to JupyterLab.

    It runs in an empty folder: Python and Jupyter run code that lies in the current one. Raise
    ToolchainError with the last line of its stderr if it fails or is too slow.
    """
    settings = {
        "JUPYTER_PREFER_ENV_PATH": "1",
        "JUPYTER_CONFIG_PATH": str(paths.CHECKOUT / "jupyter"),
    }
    command = [sys.executable, *arguments]
    with tempfile.TemporaryDirectory() as empty:
        done = capture(command, PATIENCE, cwd=empty, env={**os.environ, **settings})
    if done.returncode < 0:
        raise ToolchainError(f"it {explain_exit(done.returncode)}")
    if done.returncode > 0:
        raise ToolchainError(last_lines(done.stderr, 1)[:300] or explain_exit(done.returncode))
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
