"""Build a folder from which machines without a network are set up: `make offline FOLDER=...`.

It holds every wheel that the set-up installs, llama.cpp's source, the embedded model and QwQ's
vocabulary, the checkout, and the program that sets up from it (`offline_setup`).
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from .. import catalog, hashes, llama_source, paths
from ..download import check_disk
from ..entries import show_size
from ..errors import FetchError
from ..fetch import fetch
from ..llama_source import Say
from ..progress import say
from . import offline_setup
from .offline_setup import ABOUT, CHECKOUT, MANIFEST
from .offline_wheels import ask_version, collect_wheels, find_glibc

SET_UP = """#!/bin/sh
# Sets qwqlab up from this folder, without a network: sh set-up.sh [TARGET]
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
target=${1:-$HOME/qwqlab}
unset PYTHONPATH PYTHONHOME
python=$("${PYTHON:-python3}" -c 'import sys; print(sys.executable)') || {
  echo "${PYTHON:-python3} does not run: install Python, or put PYTHON=... before the command." >&2
  exit 1
}
command -v make >/dev/null || { echo "There is no make: install it first." >&2; exit 1; }
"$python" "$here/offline_setup.py" "$here" "$target"
make -C "$target" setup OFFLINE="$here" PYTHON="$python"
echo "qwqlab is set up. Go on with: cd '$target' && make lab"
"""

README = """qwqlab without a network, for {platform} with Python {pythons}.

    sh set-up.sh            sets it up in ~/qwqlab
    sh set-up.sh TARGET     sets it up somewhere else

It needs a C and a C++17 compiler, make and 5 GB of free disk, and takes about 7 minutes on two
cores. Typed again, it goes on where it stopped. PYTHON=python3.12 before the command names another
Python. `sha256sum -c SHA256SUMS` checks this folder.
"""


def build_folder(
    folder: Path, extras: Sequence[str] = (), pythons: Sequence[str] = (), say: Say = say
) -> int:
    """Fill `folder`, and give its size in bytes; what is there and whole is not fetched again.

    extras:  of pyproject.toml, such as "dev", besides "train", which the set-up always installs.
    pythons: names or paths of the Pythons to collect wheels for; by default the running one.

    The manifest goes first and comes last, so that a folder with one is whole. FetchError if the
    folder holds other things or cannot be written, or if pip cannot bring a wheel.
    """
    folder = folder.expanduser().resolve()
    if paths.CHECKOUT in (folder, *folder.parents):
        raise FetchError(
            f"{folder} lies in the checkout, which the folder will hold: name one outside of it, "
            "such as FOLDER=/media/stick/qwqlab."
        )
    versions = dict(sorted(map(ask_version, pythons or [sys.executable])))
    installed = list(dict.fromkeys(("train", *extras)))
    try:
        if folder.is_dir() and any(folder.iterdir()) and not (folder / ABOUT).is_file():
            raise FetchError(f"{folder} holds other things: name a new or an empty folder.")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MANIFEST).unlink(missing_ok=True)
        (folder / ABOUT).write_text("{}", encoding="utf-8")
        names = _copy_sources(folder, say)
        names += collect_wheels(folder / "wheels", versions.values(), installed, say)
        about: dict[str, Any] = {
            "platform": offline_setup.name_platform(),
            "glibc": find_glibc(names),
            "pythons": [f"3.{minor}" for minor in versions],
            "extras": installed,
            "pins": hashes.read_sha256(paths.CHECKOUT / "constraints.txt"),
        }
        n_bytes = finish_folder(folder, about, names)
    except OSError as error:
        if isinstance(error, FetchError):
            raise
        raise FetchError(
            f"{error.filename or folder} cannot be written ({error.strerror}): make room there, "
            "or name another folder."
        ) from error
    say(
        f"{folder} is whole: {len(names)} files, {show_size(n_bytes)}, for Python "
        f"{', '.join(about['pythons'])} on {about['platform']}. On a machine without a network: "
        f"sh {shlex.quote(str(folder / 'set-up.sh'))}"
    )
    return n_bytes


def _copy_sources(folder: Path, say: Say) -> list[str]:
    """Copy what the set-up puts into build/, and give the names in the folder."""
    names = []
    for source in (
        llama_source.bring_archive(say),
        fetch(catalog.EMBEDDED.name),
        fetch(catalog.QWQ_RANKS.name),
    ):
        goal = folder / "build" / source.relative_to(paths.build_dir())
        names.append(goal.relative_to(folder).as_posix())
        if goal.is_file() and hashes.read_sha256(goal) == hashes.sha256_of(source):
            continue
        check_disk(folder, source.stat().st_size, source.name, "name another folder")
        goal.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, goal)
    return names


def finish_folder(folder: Path, about: dict[str, Any], names: list[str]) -> int:
    """Write what is not fetched, and the manifest of it and `names`; give the size in bytes."""
    _write_checkout(folder / CHECKOUT)
    shutil.copyfile(offline_setup.__file__, folder / "offline_setup.py")
    (folder / "set-up.sh").write_text(SET_UP, encoding="utf-8")
    readme = README.format(platform=about["platform"], pythons=", ".join(about["pythons"]))
    (folder / "README.txt").write_text(readme, encoding="utf-8")
    (folder / ABOUT).write_text(json.dumps(about, indent=1), encoding="utf-8")
    names += [CHECKOUT, "offline_setup.py", "set-up.sh", "README.txt", ABOUT]
    lines = [f"{hashes.read_sha256(folder / name)}  {name}\n" for name in names]
    partial = folder / f".{MANIFEST}.part"
    partial.write_text("".join(lines), encoding="utf-8")
    partial.replace(folder / MANIFEST)
    return sum((folder / name).stat().st_size for name in names)


def _write_checkout(path: Path) -> None:
    def forget_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    with tarfile.open(path, "w:gz") as archive:
        for name in list_checkout():
            archive.add(paths.CHECKOUT / name, name, recursive=False, filter=forget_owner)


def list_checkout() -> list[str]:
    """The checkout's own files: those that git tracks, or would track where it is not used."""
    if (paths.CHECKOUT / ".git").exists() and shutil.which("git"):
        done = subprocess.run(
            ["git", "ls-files", "-z"], cwd=paths.CHECKOUT, capture_output=True, check=False
        )
        if done.returncode == 0:
            names = done.stdout.decode("utf-8", "surrogateescape").split("\0")
            return [name for name in names if name and (paths.CHECKOUT / name).is_file()]
    ignored = [line.rstrip("/") for line in (paths.CHECKOUT / ".gitignore").read_text().split()]
    names = []
    for place, folders, files in os.walk(paths.CHECKOUT):
        here = Path(place)
        folders[:] = [
            name for name in folders if name != ".git" and not (here / name / "pyvenv.cfg").exists()
        ]
        for entries in (folders, files):
            entries[:] = [
                name for name in entries if not any(fnmatch(name, one) for one in ignored)
            ]
        names += [(here / name).relative_to(paths.CHECKOUT).as_posix() for name in files]
    return sorted(names)
