"""Say of everything that the lab needs whether it is there and works, and what to do if not.

Nothing leaves the machine, and whatever could crash is tried in a process of its own.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from . import catalog, hashes, paths, preflight, toolchain
from .entries import Entry, Vocabulary, show_size
from .errors import QwqlabError, ToolchainError
from .exits import explain_exit
from .llama_options import TARGETS, find_nvidia_gpu
from .llama_source import SDIST
from .preflight import Check
from .sandbox import probe

# What the child process prints of the bindings, as JSON.
BINDINGS_PROBE = """
import json
from qwqlab import toolchain
folder = toolchain.point_bindings()
import llama_cpp
from llama_cpp import llama_cpp as low
print(json.dumps({
    "bindings": llama_cpp.__version__,
    "library": low._lib._name,
    "version": low.llama_version().decode(),
}))
"""

FREE_GB = 1.0
"""Room for a ladder of quants of the embedded model, and for runs."""


def checks() -> list[Check]:
    """Every check, in the order in which one rests on another."""
    return [
        preflight.check_python(),
        *preflight.check_compilers(),
        check_packages(),
        check_tools(),
        check_bindings(),
        check_model(),
        check_vocabulary(),
        preflight.check_disk(paths.build_dir(), FREE_GB),
        check_memory(),
        Check("CPU", True, f"{preflight.count_cpus()} threads, {_name_cpu()}"),
        check_gpu(),
        check_sandbox(),
    ]


def report(results: Sequence[Check]) -> str:
    """The checks as lines that begin with [OK] or [FAIL], and a last line that counts them.

    >>> print(report([Check("make", False, "no make", "run `apt-get install make`")]))
    [FAIL] make: no make: run `apt-get install make`
    1 of 1 checks failed.
    """
    lines = [f"[{'OK' if check.ok else 'FAIL'}] {check.sentence()}" for check in results]
    failed = sum(not check.ok for check in results)
    end = f"{failed} of {len(results)} checks failed." if failed else "Everything is there."
    return "\n".join([*lines, end])


def check_packages() -> Check:
    """Whether each package that pyproject.toml asks for is installed, and in its range."""
    name = "Python packages"
    remedy = "run `make setup`"
    try:
        asked = [Requirement(line) for line in metadata.requires("qwqlab") or []]
    except metadata.PackageNotFoundError:
        return Check(name, False, "qwqlab itself is not installed", remedy)
    needed = [one for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})]
    wrong = [reason for reason in map(_find_fault, needed) if reason]
    if wrong:
        return Check(name, False, "; ".join(wrong), remedy)
    shown = [f"{one} {metadata.version(one)}" for one in ("jupyterlab", "ipywidgets", "plotly")]
    return Check(name, True, f"{len(needed)} as pyproject.toml asks, {', '.join(shown)}")


def _find_fault(needed: Requirement) -> str | None:
    try:
        found = metadata.version(needed.name)
    except metadata.PackageNotFoundError:
        return f"{needed.name} is not installed"
    if needed.specifier.contains(found, prereleases=True):
        return None
    return f"{needed.name} is {found}, not {needed.specifier}"


def check_tools() -> Check:
    """Whether llama.cpp's programs are built, and which build it is."""
    name = "llama.cpp"
    try:
        llama = toolchain.find()
        missing = [one for one in TARGETS if one != "llama" and not (llama.bin / one).is_file()]
    except QwqlabError as error:
        return Check(name, False, str(error))
    if missing:
        return Check(name, False, f"{llama.bin} lacks {', '.join(missing)}", "run `make setup`")
    return Check(name, True, f"{llama.version}, {llama.compiler}, {llama.backend}, in {llama.bin}")


def check_bindings() -> Check:
    """Whether llama-cpp-python loads the library of the tools, and was written for its version."""
    name = "llama.cpp's bindings"
    try:
        folder = toolchain.library_dir()
        found = _ask_bindings()
    except QwqlabError as error:
        return Check(name, False, str(error), "run `make setup`")
    detail = f"llama-cpp-python {found['bindings']} with {found['library']} {found['version']}"
    if not found["library"].startswith(str(folder)):
        return Check(name, False, f"{detail}, not the one in {folder}", "unset LLAMA_CPP_LIB_PATH")
    try:
        version = toolchain.find().version
    except ToolchainError:
        version = f"{found['version']} of the bindings, commit {SDIST.commit}"
    if not version.startswith(found["version"]):
        return Check(name, False, f"{detail}, but the tools are {version}", "run `make setup`")
    if SDIST.commit not in version:
        remedy = "unset QWQLAB_LLAMA_CPP and QWQLAB_LLAMA_CPP_BUILD to use the lab's own build"
        detail = f"{detail}, written for commit {SDIST.commit} and not for {version}"
        return Check(name, False, detail, remedy)
    return Check(name, True, detail)


def _ask_bindings() -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", BINDINGS_PROBE],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        cwd=paths.CHECKOUT,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [explain_exit(done.returncode)])[-1]
        raise ToolchainError(f"the bindings do not load ({last})")
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def check_model() -> Check:
    """Whether the embedded model's file is there, byte for byte the one in the catalog."""
    return _check_file("Embedded model", catalog.EMBEDDED)


def check_vocabulary() -> Check:
    """Whether the ranks of QwQ-32B's vocabulary are there, byte for byte."""
    return _check_file("QwQ-32B's vocabulary", catalog.QWQ_RANKS)


def _check_file(name: str, entry: Entry | Vocabulary) -> Check:
    path = paths.models_dir() / entry.filename
    remedy = f"run `qwqlab fetch {entry.name}`"
    if not path.is_file():
        return Check(name, False, f"no {path}", remedy)
    try:
        found = hashes.sha256_of(path)
    except QwqlabError as error:
        return Check(name, False, str(error), remedy)
    if found != entry.sha256:
        return Check(name, False, f"{path} has sha256 {found}", f"delete it, then {remedy}")
    size = show_size(entry.n_bytes)
    return Check(name, True, f"{path.name}, {size}, sha256 as catalogued")


def check_memory() -> Check:
    """Whether the machine has memory for the notebooks."""
    gigabytes = preflight.count_memory() / 1e9
    remedy = "close other programs; notebooks that measure speed will be slow"
    return Check("Memory", gigabytes >= 3.5, f"{gigabytes:.1f} GB", remedy)


def check_gpu() -> Check:
    """Which GPU there is; none is needed, so this cannot fail."""
    gpu = find_nvidia_gpu()
    if gpu is None and sys.platform == "darwin" and platform.machine() == "arm64":
        gpu = "Apple's, through Metal"
    try:
        backend = toolchain.find().backend
    except QwqlabError:
        backend = "unknown"
    if gpu is None:
        return Check("GPU", True, "none, and none is needed: cells that want one are skipped")
    hint = "" if backend != "CPU" else "; `CMAKE_ARGS=-DGGML_CUDA=ON make setup` builds for it"
    return Check("GPU", True, f"{gpu}; llama.cpp is a {backend} build{hint}")


def check_sandbox() -> Check:
    """How well a program that a model wrote can be confined; the grader asks for "strong"."""
    try:
        isolation = probe()
    except QwqlabError as error:
        return Check("Sandbox", False, str(error), "run `make setup`")
    how = f"{isolation.level}, by {', '.join(isolation.applied)}"
    if isolation.level == "strong":
        return Check("Sandbox", True, how)
    return Check("Sandbox", True, f"{how}; `qwqlab grade` runs nothing here unless told otherwise")


def _name_cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    named = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return named[1] if named else platform.processor() or platform.machine()
