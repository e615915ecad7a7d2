"""What must be on the machine before the set-up starts, and the command that brings what is not.

Runs before there is an environment, with whatever python3 is there, so it uses the standard
library alone and the syntax of Python 3.6: `python3 qwqlab/preflight.py` prints one line for each
missing thing and exits with 1, or prints nothing and exits with 0.
"""

import os
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import List, NamedTuple, Optional, Set, Tuple

OLDEST, NEWEST = (3, 10), (3, 13)

# Measured on Linux: packages 2.2 GB with a CPU build of torch, llama.cpp's source and build
# 0.4 GB, the embedded model 0.1 GB and 0.5 GB unpacked; the rest is room for a ladder of quants
# and for runs. A CUDA build of torch takes 4 GB more.
NEED_GB = 5.0

# CMake asks for both languages, and llama.cpp is C++17.
PROBES = (
    ("C compiler", "CC", ("cc", "gcc", "clang"), "c", "#include <stdio.h>\nint x;\n"),
    (
        "C++ compiler",
        "CXX",
        ("c++", "g++", "clang++"),
        "c++",
        "#include <filesystem>\n#include <thread>\nstd::thread t;\nstd::filesystem::path p;\n",
    ),
)

REMEDIES = {
    "compiler": (
        "sudo apt-get install build-essential",
        "sudo dnf install gcc gcc-c++ make",
        "xcode-select --install",
    ),
    "make": (
        "sudo apt-get install make",
        "sudo dnf install make",
        "xcode-select --install",
    ),
    "python": (
        "sudo apt-get install python3 python3-venv",
        "sudo dnf install python3",
        "brew install python@3.13",
    ),
    "venv": (
        "sudo apt-get install python3-venv",
        "sudo dnf install python3",
        "brew install python@3.13",
    ),
}


class Check(NamedTuple):
    """One thing that the lab needs: whether it is there, what was found, what to do if not."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""

    def sentence(self) -> str:
        """The check as one line: `name: detail: remedy`, the remedy only when it is needed."""
        need = "" if self.ok or not self.remedy else ": " + self.remedy
        return "{}: {}{}".format(self.name, self.detail, need)


def name_remedy(thing: str) -> str:
    """The command that installs a thing on this system, or on all three where it is unknown."""
    debian, fedora, macos = REMEDIES[thing]
    if sys.platform == "darwin":
        return "run `{}`".format(macos)
    family = _read_os_family()
    if family & {"debian", "ubuntu"}:
        return "run `{}`".format(debian)
    if family & {"fedora", "rhel", "centos"}:
        return "run `{}`".format(fedora)
    return "run `{}` (Debian, Ubuntu), `{}` (Fedora) or `{}` (macOS)".format(debian, fedora, macos)


def _read_os_family() -> Set[str]:
    try:
        text = Path("/etc/os-release").read_text(encoding="utf-8")
    except OSError:
        return set()
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {word for key in ("ID", "ID_LIKE") for word in values.get(key, "").strip("\"'").split()}


def check_python(version: Tuple[int, int] = sys.version_info[:2]) -> Check:
    """Whether this Python is one that every dependency is pinned for.

    >>> check_python((3, 9)).ok, check_python((3, 10)).ok, check_python((3, 14)).ok
    (False, True, False)
    """
    wanted = "{}.{} to {}.{}".format(*OLDEST, *NEWEST)
    found = "{}.{} ({})".format(version[0], version[1], sys.executable)
    if OLDEST <= version <= NEWEST:
        return Check("Python", True, found)
    others = ["python3.{}".format(minor) for minor in range(NEWEST[1], OLDEST[1] - 1, -1)]
    for other in filter(_runs, others):
        remedy = "{} is on this machine: add `PYTHON={}` to the make command".format(other, other)
        return Check("Python", False, "{} is not {}".format(found, wanted), remedy)
    return Check("Python", False, "{} is not {}".format(found, wanted), name_remedy("python"))


def _runs(program: str) -> bool:
    """Whether a program starts: a version manager's stand-in is on PATH and does not."""
    if shutil.which(program) is None:
        return False
    done = subprocess.run(
        [program, "-c", "import ensurepip"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return done.returncode == 0


def check_venv() -> Check:
    """Whether this Python can make an environment: Debian ships that part on its own."""
    ok = find_spec("venv") is not None and find_spec("ensurepip") is not None
    detail = "python -m venv works" if ok else "this Python has no venv or no ensurepip"
    return Check("Python's venv", ok, detail, name_remedy("venv"))


def check_compilers() -> List[Check]:
    """Whether a C and a C++17 compiler are there, tried on a few lines of source."""
    return [_try_compiler(*probe) for probe in PROBES]


def _try_compiler(
    what: str, variable: str, names: Tuple[str, ...], language: str, source: str
) -> Check:
    try:
        asked = shlex.split(os.environ.get(variable, ""))
    except ValueError as error:
        detail = "{}={} is no command ({})".format(variable, os.environ[variable], error)
        return Check(what, False, detail, "set {} to a compiler, or unset it".format(variable))
    found = next((path for path in map(shutil.which, asked[:1] or names) if path), None)
    if found is None:
        looked = " or ".join(asked[:1] or names)
        return Check(what, False, "no {}".format(looked), name_remedy("compiler"))
    command = [found, *asked[1:], "-x", language, "-fsyntax-only"]
    if language == "c++":
        command.append("-std=c++17")
    try:
        done = subprocess.run(
            [*command, "-"],
            input=source.encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = getattr(error, "strerror", None) or "it takes more than a minute"
    else:
        if done.returncode == 0:
            return Check(what, True, found)
        reason = (done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no message"])[0]
    detail = "{} cannot compile a few lines ({})".format(found, reason)
    return Check(what, False, detail, name_remedy("compiler"))


def check_make() -> Check:
    """Whether make is there."""
    found = shutil.which((os.environ.get("MAKE", "").split() or ["make"])[0])
    return Check("make", found is not None, found or "no make", name_remedy("make"))


def check_disk(folder: Optional[Path] = None, need_gb: float = NEED_GB) -> Check:
    """Whether the disk that holds the lab has room for what is still to come."""
    checkout = Path(__file__).resolve().parent.parent
    home = os.environ.get("QWQLAB_HOME") or str(checkout)
    place = folder or Path(os.path.expanduser(home))  # noqa: PTH111 - as paths.from_user
    while not place.exists():
        place = place.parent
    free_gb = shutil.disk_usage(str(place)).free / 1e9
    detail = "{:.1f} GB free at {}".format(free_gb, place)
    if free_gb >= need_gb:
        return Check("Disk", True, detail)
    remedy = "{:.1f} GB are needed: free some, or set QWQLAB_HOME to a larger disk".format(need_gb)
    return Check("Disk", False, detail, remedy)


def count_cpus() -> int:
    """CPU threads that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def count_memory() -> int:
    """Bytes of memory that the machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_machine() -> List[Check]:
    """All of them, in the order in which the set-up needs them."""
    return [check_python(), check_venv(), *check_compilers(), check_make(), check_disk()]


def main() -> int:
    """Print what is missing, a line each; 0 when nothing is."""
    missing = [check for check in check_machine() if not check.ok]
    for check in missing:
        print(check.sentence(), file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
