"""Build a folder from which machines without a network are set up: `make offline FOLDER=...`.

It holds every wheel that the set-up installs, llama.cpp's source, the embedded model and QwQ's
vocabulary, the checkout, and `set-up.sh`, which unpacks the checkout and runs `make setup
OFFLINE=...` there. The Makefile then checks the hashes, copies build/, and lets pip see only the
folder.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path

from .. import files, paths
from ..errors import FetchError
from ..llamacpp import fetch_archive, module_command
from ..models import EMBEDDED, QWQ_RANKS, fetch
from ..progress import say

MANIFEST = "SHA256SUMS"  # written last, so that a folder without it is not finished
CHECKOUT = "checkout.tar.gz"
OWN = {"wheels", "build", MANIFEST, CHECKOUT, "set-up.sh"}

# What installs the lab itself: pip, and what builds it into an environment (pyproject.toml).
INSTALLERS = ("pip>=24", "hatchling>=1.25", "editables")

SET_UP = """#!/bin/sh
# Sets qwqlab up from this folder, without a network, for {platform} with Python {pythons}:
#
#     sh set-up.sh            sets it up in ~/qwqlab
#     sh set-up.sh TARGET     sets it up somewhere else
#
# It needs a C and a C++17 compiler, make and 5 GB of free disk, and takes about 7 minutes on two
# cores. Run it again, and it goes on where it stopped. To use another Python, put PYTHON=python3.12
# before the command. `sha256sum -c SHA256SUMS` checks this folder.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
target=${{1:-$HOME/qwqlab}}
python=${{PYTHON:-python3}}
unset PYTHONPATH PYTHONHOME
refuse() {{ echo "$1" >&2; exit 1; }}
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') ||
  refuse "$python does not run: install Python, or put PYTHON=... before the command."
case " {pythons} " in
  *" $version "*) ;;
  *) refuse "The folder is for Python {pythons} and $python is $version: put PYTHON=python... \\
before the command, or build a folder for it.";;
esac
[ "$(uname -sm)" = "{platform}" ] ||
  refuse "The folder is for {platform} and this is $(uname -sm): build one on a machine like this."
command -v make >/dev/null || refuse "There is no make: install it first."
[ -f "$here/SHA256SUMS" ] || refuse "$here is not finished: run \\`make offline\\` again."
if [ -f "$target/qwqlab/paths.py" ]; then
  echo "$target is there already, and is left as it is."
elif [ -n "$(ls -A "$target" 2>/dev/null)" ]; then
  refuse "$target holds other things: name another place."
else
  rm -rf "$target.part"
  mkdir -p "$target.part"
  tar -xozf "$here/{checkout}" -C "$target.part"
  rm -rf "$target"
  mv "$target.part" "$target"
fi
make -C "$target" setup OFFLINE="$here" PYTHON="$(command -v "$python")"
echo "qwqlab is set up. Go on with: cd '$target' && make lab"
"""


def build_folder(folder: Path, extras: Sequence[str] = (), pythons: Sequence[str] = ()) -> None:
    """Fill `folder` with all that a set-up needs.

    extras:  of pyproject.toml, such as "dev", besides "train", which the set-up always installs.
    pythons: names or paths of the Pythons to collect wheels for; by default the running one.

    The manifest is removed first and written last, so that a folder with one is whole. Raise
    FetchError if the folder holds other things or if pip finds no wheel, FileError if it cannot be
    written.
    """
    folder = folder.expanduser().resolve()
    if paths.CHECKOUT in (folder, *folder.parents):
        raise FetchError(
            f"{folder} lies in the checkout, which goes into the folder: name one outside of it, "
            "such as FOLDER=/media/stick/qwqlab."
        )
    programs = {_ask_version(python): python for python in pythons or [sys.executable]}
    versions = " ".join(sorted(programs))
    with files.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if {path.name for path in folder.iterdir()} - OWN:
            raise FetchError(f"{folder} holds other things: name a new or an empty folder.")
        (folder / MANIFEST).unlink(missing_ok=True)
        _copy_sources(folder)
        _collect_wheels(folder / "wheels", programs.values(), ["train", *extras])
        write_own_files(folder, versions)
        n_bytes = write_manifest(folder)
    say(
        f"{folder} is ready, {n_bytes / 1e9:.2f} GB, for Python {versions} on {name_platform()}. "
        f"On a machine without a network: sh {shlex.quote(str(folder / 'set-up.sh'))}"
    )


def name_platform() -> str:
    """Return what compiled wheels are made for, as `uname -sm` prints it: "Linux x86_64"."""
    return f"{platform.system()} {platform.machine()}"


def write_own_files(folder: Path, versions: str) -> None:
    """Write what is not fetched: the checkout, and the program that sets it up."""
    _write_checkout(folder / CHECKOUT)
    about = {"platform": name_platform(), "pythons": versions, "checkout": CHECKOUT}
    (folder / "set-up.sh").write_text(SET_UP.format(**about), encoding="utf-8")


def write_manifest(folder: Path) -> int:
    """Write the sha256 of every file in the folder; return their size in bytes."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{files.read_sha256(path)}  {path.relative_to(folder)}\n" for path in found]
    files.write_text(folder / MANIFEST, "".join(lines))
    return sum(path.stat().st_size for path in found)


def _ask_version(python: str) -> str:
    """Return the version of a Python, such as "3.12"."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        command = [shutil.which(python) or python, "-c", code]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise FetchError(
            f"{python} does not run here: install it, or leave it out of PYTHONS."
        ) from error


def _copy_sources(folder: Path) -> None:
    """Copy what the set-up puts into build/."""
    for source in (fetch_archive(), fetch(EMBEDDED.name), fetch(QWQ_RANKS.name)):
        goal = folder / "build" / source.relative_to(paths.build_dir())
        goal.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, goal)


def _collect_wheels(wheels: Path, pythons: Iterable[str], extras: Sequence[str]) -> None:
    """Let pip fetch or build the wheels of an installation with these extras."""
    shutil.rmtree(wheels, ignore_errors=True)
    wanted = [f".[{','.join(extras)}]", *INSTALLERS]
    with suppress(metadata.PackageNotFoundError):
        # The installed build: one such as "+cpu" comes from an index of its own.
        wanted.append(f"torch=={metadata.version('torch')}")
    for python in pythons:
        say(f"Collecting the wheels for {python} (a minute or more, 0.5 GB; with CUDA 3 GB) ...")
        _run_pip(python, "wheel", "--wheel-dir", str(wheels), *wanted)
    for wheel in wheels.glob("qwqlab-*.whl"):
        wheel.unlink()  # the lab itself is installed from its checkout


def _run_pip(python: str, *arguments: str) -> None:
    kept = {key: os.environ[key] for key in os.environ.keys() - {"PYTHONPATH", "PYTHONHOME"}}
    done = subprocess.run(
        module_command(
            "pip", "--python", python, *arguments, "--quiet", "--no-input",
            "--disable-pip-version-check", "--constraint", "constraints.txt",
        ),
        cwd=paths.CHECKOUT,
        # As in the Makefile: the bindings come without a library of their own.
        env={**kept, "CMAKE_ARGS": "-DLLAMA_BUILD=OFF"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )  # fmt: skip
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        why = (errors or done.stderr.strip().splitlines() or ["pip gave no reason"])[0]
        raise FetchError(
            f"pip could not collect the wheels for {python} ({why.removeprefix('ERROR: ')}): check "
            "the network and the room on the disk; if torch is missing, name an index that has "
            "this build of it for that Python in PIP_EXTRA_INDEX_URL."
        )


def _write_checkout(path: Path) -> None:
    """Pack the checkout, with its changes, but without what .gitignore names and environments."""
    ignored = (paths.CHECKOUT / ".gitignore").read_text(encoding="utf-8").split()
    ignored = [pattern.rstrip("/") for pattern in (".git", *ignored)]

    def choose(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        name = Path(member.name).name
        environment = (paths.CHECKOUT / member.name / "pyvenv.cfg").exists()
        if environment or any(fnmatch(name, pattern) for pattern in ignored):
            return None
        return member

    with tarfile.open(path, "w:gz") as archive:
        archive.add(paths.CHECKOUT, ".", filter=choose)
