"""The wheels of a folder of `make offline`: collected by pip, and tried without an index."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

from .. import paths
from ..errors import FetchError
from ..llama_source import Say

# What installs the lab itself: pip, and what builds it into an environment (pyproject.toml).
INSTALLERS = ("pip>=24", "hatchling>=1.25", "editables")


def ask_version(python: str) -> tuple[int, str]:
    """The minor version of a Python, and its path."""
    program = shutil.which(python)
    done = subprocess.run(
        [program or "false", "-c", "import sys; print(sys.version_info[1], sys.executable)"],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode != 0:
        raise FetchError(f"{python} does not run here: install it, or leave it out of PYTHONS.")
    minor, path = done.stdout.strip().split(" ", 1)
    return int(minor), path


def collect_wheels(
    wheels: Path, pythons: Iterable[str], extras: Iterable[str], say: Say
) -> list[str]:
    """Bring what an installation with these extras takes, and give the names in the folder.

    What is there and whole is not fetched again, nor is an index asked where that suffices; what is
    not wanted is removed. FetchError with pip's last word if it cannot bring a wheel.
    """
    # The lab itself comes first: the trial below puts an option before it.
    wanted = [f".[{','.join(extras)}]", *INSTALLERS, *_pin_torch()]
    wheels.mkdir(exist_ok=True)
    for wheel in wheels.glob("*.whl"):
        if not is_whole(wheel):
            wheel.unlink()
    names: set[str] = set()
    for python in pythons:
        try:
            names |= _resolve(python, wheels, wanted)
        except FetchError:
            say(
                f"Collecting the wheels for {python} (a minute or more, 0.5 GB; with CUDA 3 GB) ..."
            )
            options = ["--wheel-dir", str(wheels), "--find-links", str(wheels)]
            _run_pip(python, "wheel", [*options, *wanted], _clean_environment())
            names |= _resolve(python, wheels, wanted)
    for wheel in wheels.glob("*.whl"):
        if wheel.name not in names:
            wheel.unlink()
    return [f"wheels/{name}" for name in sorted(names)]


def find_glibc(wheels: Iterable[str]) -> list[int]:
    """The oldest glibc that all of these wheels run with, by their names; empty if none says.

    >>> find_glibc(["a-1-py3-none-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl", "b-1-any.whl"])
    [2, 27]
    """
    needs = [re.findall(r"manylinux_2_(\d+)_", name) for name in wheels]
    return max(([2, min(map(int, minors))] for minors in needs if minors), default=[])


def _pin_torch() -> list[str]:
    """The build of torch that is here: a version as "+cpu" comes from an index of its own."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return [f"torch=={metadata.version('torch')}"]
    return []


def is_whole(wheel: Path) -> bool:
    """Whether every member of a wheel has its checksum: a copy that was cut short has not."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError):
        return False


def _resolve(python: str, wheels: Path, wanted: list[str]) -> set[str]:
    """The wheels that an installation takes from the folder alone; FetchError if one is missing."""
    with tempfile.TemporaryDirectory() as place:
        report = Path(place) / "report.json"
        options = ["--dry-run", "--ignore-installed", "--report", str(report)]
        options += ["--no-index", "--find-links", str(wheels)]
        # What pip is configured to use here does not count there.
        environment = {**_clean_environment("PIP_"), "PIP_CONFIG_FILE": os.devnull}
        # Editable, as the set-up installs it: that takes a package more to build.
        _run_pip(python, "install", [*options, "--editable", *wanted], environment)
        installed = json.loads(report.read_text(encoding="utf-8"))["install"]
    urls = [urlsplit(one["download_info"]["url"]).path for one in installed]
    return {Path(unquote(url)).name for url in urls if url.endswith(".whl")}


def _clean_environment(*prefixes: str) -> dict[str, str]:
    unwanted = ("PYTHONPATH", "PYTHONHOME", *prefixes)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(unwanted)}
    # As in the Makefile: the bindings come without a library of their own.
    return {**kept, "CMAKE_ARGS": "-DLLAMA_BUILD=OFF"}


def _run_pip(python: str, command: str, args: list[str], environment: dict[str, str]) -> None:
    pip = [sys.executable, "-m", "pip", "--python", python, command, "--quiet", "--no-input"]
    done = subprocess.run(
        [*pip, "--disable-pip-version-check", "--constraint", "constraints.txt", *args],
        cwd=paths.CHECKOUT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        raise FetchError(
            f"pip could not collect the wheels for {python} ({_find_reason(done.stderr)}): check "
            "the network and the room on the disk; if torch lacks, name an index that has this "
            "build of it for that Python in PIP_EXTRA_INDEX_URL."
        )


def _find_reason(stderr: str) -> str:
    r"""pip's last error that says something, or its last line where that is an exception's.

    >>> _find_reason("ERROR: Cannot install a.\nERROR: ResolutionImpossible: for help visit ...\n")
    'Cannot install a.'
    >>> _find_reason("ERROR: Exception:\nTraceback:\n  x()\nOSError: No space left on device\n")
    'OSError: No space left on device'
    """
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR: ")]
    if "ERROR: Exception:" in errors:
        errors = lines
    telling = [line for line in errors or lines if "ResolutionImpossible" not in line]
    return telling[-1].removeprefix("ERROR: ") if telling else "pip gave no reason"
