"""The lab's notebooks as they came: from git, from a folder of the lab, or from an archive of it.

The package does not hold them a second time, so an unpacked archive has to be named again.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from ..errors import ResetError

MEMBER = re.compile(r"(?:\./)?(?:[^/]+/)?notebooks/([^/]+\.ipynb)")
MOST_BYTES = 16 << 20
"""Of one notebook; those that come with the lab have less than 50 kB."""


def read_pristine(folder: Path, source: Path | None = None) -> dict[str, bytes]:
    """The notebooks that belong into `folder`, by name in order: as git has them, or `source`.

    source: a folder that holds notebooks/, a .zip or a .tar of one. ResetError says what to do
    where there is no git, no such commit or file, or where they hold no notebooks.
    """
    found = _read_git(folder) if source is None else _read_source(source.expanduser())
    for name, data in found.items():
        try:
            whole = isinstance(json.loads(data)["cells"], list)
        except (ValueError, KeyError, TypeError, RecursionError):
            whole = False
        if not whole:
            raise ResetError(f"{name} in {source or 'the last commit'} is no notebook itself.")
    return dict(sorted(found.items()))


def _read_git(folder: Path) -> dict[str, bytes]:
    lab = folder.parent
    listed = _git(lab, "ls-tree", "-z", "--name-only", "HEAD", f"{folder.name}/")
    names = [os.fsdecode(path) for path in listed.split(b"\0") if path.endswith(b".ipynb")]
    if not names:
        raise ResetError(_advise(lab, f"git has no notebooks of {lab} in its last commit"))
    return {Path(name).name: _git(lab, "cat-file", "--filters", f"HEAD:./{name}") for name in names}


def _git(lab: Path, *args: str) -> bytes:
    """What git prints in a folder, whatever repository the environment may name."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", *args],
            cwd=lab,
            env={**plain, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    except OSError as error:
        raise ResetError(_advise(lab, f"git does not start ({error.strerror})")) from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["it said nothing"]
        fatal = next((line for line in said if line.startswith("fatal: ")), said[-1])
        raise ResetError(_advise(lab, f"git cannot read {lab} ({fatal})"))
    return done.stdout


def _advise(lab: Path, why: str) -> str:
    return (
        f"How the notebooks came is not known here: {why}. Name the archive that {lab.name} came "
        "in, or a fresh copy of the lab: `qwqlab reset --from FILE-OR-FOLDER`."
    )


def _read_source(source: Path) -> dict[str, bytes]:
    try:
        found = dict(_read_folder(source) if source.is_dir() else _read_archive(source))
    except OSError as error:
        raise ResetError(f"{source} cannot be read: {error.strerror or error}.") from error
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError) as error:
        raise ResetError(f"{source} is a damaged archive ({error}); bring it again.") from error
    if not found:
        raise ResetError(
            f"{source} holds no notebooks; give the lab's folder, or an archive of it."
        )
    return found


def _read_folder(source: Path) -> Iterator[tuple[str, bytes]]:
    for path in source.glob("notebooks/*.ipynb"):
        yield path.name, path.read_bytes()


def _read_archive(source: Path) -> Iterator[tuple[str, bytes]]:
    """The notebooks in an archive, read and never unpacked."""
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            for info in archive.infolist():
                if match := _match(info.filename, info.file_size, source):
                    yield match, archive.read(info)
        return
    if not source.exists() or not tarfile.is_tarfile(source):
        what = "is neither a folder nor a .zip or .tar" if source.exists() else "does not exist"
        raise ResetError(f"{source} {what}; give the lab's folder, or an archive of it.")
    with tarfile.open(source) as archive:
        for member in archive:
            match = _match(member.name, member.size, source)
            if match and (file := archive.extractfile(member)):
                yield match, file.read()


def _match(path: str, n_bytes: int, source: Path) -> str | None:
    match = MEMBER.fullmatch(path)
    if match and n_bytes > MOST_BYTES:
        raise ResetError(
            f"{path} in {source} has {n_bytes} bytes, too many for a notebook of ours."
        )
    return match[1] if match else None
