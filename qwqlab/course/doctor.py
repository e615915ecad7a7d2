"""Say of everything that the lab needs whether it is there and works, and what to do if not.

Nothing leaves the machine, and whatever could crash is tried in a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from typing import Any

from packaging.requirements import Requirement

from .. import paths, preflight, toolchain
from ..errors import QwqlabError, ToolchainError, first_lines
from ..llama_options import TARGETS
from ..llama_source import SDIST
from ..preflight import Check
from .doctor_ask import ask_python
from .doctor_jupyter import check_extensions, check_kernel, name_setup
from .doctor_machine import check_cpu, check_gpu, check_memory, check_sandbox
from .doctor_models import check_answer, check_files, check_model, check_vocabulary

__all__ = ["check_model", "check_vocabulary", "checks", "report", "to_dict"]

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

SHOWN = {
    "": ("jupyterlab", "ipywidgets", "plotly", "transformers"),
    "train": ("torch", "peft", "trl", "bitsandbytes"),
}


def checks() -> list[Check]:
    """Every check, in the order in which one rests on another. Nothing is raised."""
    asked: list[tuple[str, Callable[[], Check | Sequence[Check]]]] = [
        ("Python", preflight.check_python),
        ("Compilers", preflight.check_compilers),
        ("Python packages", check_packages),
        ("Packages for fine-tuning", lambda: check_packages("train")),
        ("llama.cpp", check_tools),
        ("llama.cpp's bindings", check_bindings),
        ("Model files", check_files),
        ("An answer", check_answer),
        ("Jupyter kernel", check_kernel),
        ("JupyterLab extensions", check_extensions),
        ("Disk", lambda: preflight.check_disk(paths.build_dir(), FREE_GB)),
        ("Memory", check_memory),
        ("CPU", check_cpu),
        ("GPU", check_gpu),
        ("Sandbox", check_sandbox),
    ]
    # Most of them wait for a program that they started.
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda pair: _survive(*pair), asked)
        return [check for checks in found for check in checks]


def _survive(name: str, check: Callable[[], Check | Sequence[Check]]) -> Sequence[Check]:
    """What a check finds; one that raises has failed, and says so in a sentence."""
    try:
        found = check()
    except Exception as error:  # noqa: BLE001 - a machine can be broken in ways unheard of
        detail = f"it cannot be checked ({type(error).__name__}: {first_lines(error)})"
        return [Check(name, False, detail, f"mend what is named there, or {name_setup()}")]
    return [found] if isinstance(found, Check) else found


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


def to_dict(results: Sequence[Check]) -> dict[str, Any]:
    """The checks as JSON-ready values: "ok" of all of them, and each under "checks".

    >>> to_dict([Check("make", True, "/usr/bin/make", "run something")])["checks"]
    [{'name': 'make', 'ok': True, 'detail': '/usr/bin/make', 'remedy': ''}]
    """
    each = [check._replace(remedy="" if check.ok else check.remedy)._asdict() for check in results]
    return {"ok": all(check.ok for check in results), "checks": each}


def check_packages(extra: str = "") -> Check:
    """Whether each package that pyproject.toml asks for is installed, and in its range.

    extra: "train" for those that fine-tuning takes; the others otherwise.
    """
    name = "Packages for fine-tuning" if extra else "Python packages"
    remedy = name_setup()
    try:
        asked = [Requirement(line) for line in metadata.requires("qwqlab") or []]
    except metadata.PackageNotFoundError:
        return Check(name, False, "qwqlab itself is not installed", remedy)
    needed = [one for one in asked if _is_needed(one, extra)]
    wrong = [reason for reason in map(_find_fault, needed) if reason]
    if wrong:
        return Check(name, False, "; ".join(wrong), remedy)
    shown = [f"{one} {metadata.version(one)}" for one in SHOWN[extra]]
    return Check(name, True, f"{len(needed)} as pyproject.toml asks, {', '.join(shown)}")


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
        found = ask_python(["-c", BINDINGS_PROBE])
    except QwqlabError as error:
        return Check(name, False, f"they do not load ({error})", name_setup())
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
