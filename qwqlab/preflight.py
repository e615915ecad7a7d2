"""Check what the set-up needs of the machine, and name the command that installs what is missing.

This runs before there is an environment, with any python3, so it uses the standard library alone
and the syntax of Python 3.6: `python3 qwqlab/preflight.py` prints one line for each missing thing
and exits with 1, or prints nothing and exits with 0.
"""

import os
import platform
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import List, NamedTuple, Optional, Tuple

OLDEST, NEWEST = (3, 10), (3, 13)

# Measured on Linux: packages 2.2 GB with a CPU build of torch, llama.cpp's source and build
# 0.4 GB, the embedded model 0.1 GB and 0.5 GB unpacked; the rest is room for a ladder of quants
# and for runs. A CUDA build of torch takes 4 GB more.
NEED_GB = 5.0

# CMake asks for both languages.
COMPILERS = {
    "C compiler": ("CC", ["cc", "gcc", "clang"]),
    "C++ compiler": ("CXX", ["c++", "g++", "clang++"]),
}

_INSTALL = (
    "run `sudo apt-get install {}` (Debian, Ubuntu), `sudo dnf install {}` (Fedora) or `{}` (macOS)"
)
REMEDIES = {
    "compiler": _INSTALL.format("build-essential", "gcc gcc-c++ make", "xcode-select --install"),
    "make": _INSTALL.format("make", "make", "xcode-select --install"),
    "python": _INSTALL.format("python3 python3-venv", "python3", "brew install python@3.13"),
}


class Check(NamedTuple):
    """One thing that the lab needs: is it there, what was found, and what to do if not."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""

    def sentence(self) -> str:
        """Return the check as a line: `name: detail: remedy`, the remedy only when it is needed."""
        need = "" if self.ok or not self.remedy else ": " + self.remedy
        return "{}: {}{}".format(self.name, self.detail, need)


def check_python(version: Tuple[int, int] = sys.version_info[:2]) -> Check:
    """Check that every dependency is pinned for this Python.

    >>> check_python((3, 9)).ok, check_python((3, 10)).ok, check_python((3, 14)).ok
    (False, True, False)
    """
    wanted = "{}.{} to {}.{}".format(*OLDEST, *NEWEST)
    found = "{}.{} ({})".format(version[0], version[1], sys.executable)
    if OLDEST <= version <= NEWEST:
        return Check("Python", True, found)
    remedy = "if you have another, add it to the make command, such as `PYTHON=python3.13`, or "
    return Check("Python", False, "{} is not {}".format(found, wanted), remedy + REMEDIES["python"])


def check_venv() -> Check:
    """Check that this Python can make an environment: Debian ships that part on its own."""
    ok = find_spec("venv") is not None and find_spec("ensurepip") is not None
    detail = "python -m venv works" if ok else "this Python has no venv or no ensurepip"
    return Check("Python's venv", ok, detail, REMEDIES["python"])


def check_compilers() -> List[Check]:
    """Check that a C and a C++ compiler are there; whether they work, CMake finds out."""
    checks = []
    for what, (variable, names) in COMPILERS.items():
        names = os.environ.get(variable, "").split()[:1] or names
        found = next(filter(None, map(shutil.which, names)), None)
        detail = found or "no {}".format(" or ".join(names))
        checks.append(Check(what, found is not None, detail, REMEDIES["compiler"]))
    return checks


def check_make() -> Check:
    """Check that make is there."""
    found = shutil.which((os.environ.get("MAKE", "").split() or ["make"])[0])
    return Check("make", found is not None, found or "no make", REMEDIES["make"])


def check_disk(folder: Optional[Path] = None, need_gb: float = NEED_GB) -> Check:
    """Check that the disk that holds the lab has room for what is still to come."""
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
    """Return the number of CPU threads that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def name_processor() -> str:
    """Return the processor's name, as Linux gives it, or else the machine's kind."""
    return _ask_processor("model name") or platform.processor() or platform.machine()


def name_vectors() -> str:
    """Return the widest vectors of an x86-64 processor, "" elsewhere or where nobody says.

    llama.cpp sums in another order with wider ones, so texts of two machines may differ.
    """
    flags = _ask_processor("flags").split()
    kinds = {"AVX-512": "avx512f", "AVX2": "avx2", "AVX": "avx"}
    return next((name for name, flag in kinds.items() if flag in flags), "")


def _ask_processor(what: str) -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(what):
                return line.split(":", 1)[1].strip()
    return ""


def count_memory() -> int:
    """Return the bytes of memory that the machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_machine() -> List[Check]:
    """Return all checks, in the order in which the set-up needs them."""
    return [check_python(), check_venv(), *check_compilers(), check_make(), check_disk()]


def main() -> int:
    """Print a line for each missing thing; return 1 if there is one, else 0."""
    missing = [check for check in check_machine() if not check.ok]
    for check in missing:
        print(check.sentence(), file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
