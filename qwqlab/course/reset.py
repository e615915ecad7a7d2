"""Put notebooks back as they came, and keep what a student wrote in them.

The originals come from git's HEAD, or from a folder or an archive of the lab that the student
names. What counts as written are the cells: their kinds, texts and pasted pictures. Outputs alone
are removed and not kept, since running the cells brings them back; a notebook with changed cells is
kept whole.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from .. import files, paths
from ..errors import FileError, ResetError, SettingError

_MEMBER = re.compile(r"(?:\./)?(?:[^/]+/)?notebooks/([^/]+\.ipynb)")
_NEIGHBOUR = re.compile(rb"(?<=\]\()(?=\d\d_\w+\.ipynb)")  # before a link to another notebook


def reset_notebooks(names: Sequence[str] = (), source: Path | None = None) -> list[str]:
    """Put these notebooks back, or all of them; return a sentence for each that had changed.

    names:   a file's name, with or without `.ipynb`, its number, or its path.
    source:  a folder of the lab or an archive of it, instead of git's HEAD.

    All that a student wrote is in `kept_dir()` before the first notebook is replaced, each file
    whole. Other notebooks in the folder are left alone. Raise SettingError for a notebook that the
    lab does not have, ResetError if the originals cannot be read or a file cannot be written.
    """
    originals = _read_originals(source)
    chosen = dict.fromkeys([_find_name(name, list(originals)) for name in names] or originals)
    now = {name: _read(paths.notebooks_dir() / name) for name in chosen}
    changed = {name: old for name, old in now.items() if old != originals[name]}
    stamp = f"{datetime.now():%Y-%m-%d_%H-%M-%S.%f}"[:-3]
    told = []
    for name, old in changed.items():
        kept = paths.kept_dir() / f"{Path(name).stem}_{stamp}.ipynb"
        told.append(f"{name} is as it came; {_keep(old, originals[name], kept)}")
    for name in changed:
        _write(paths.notebooks_dir() / name, originals[name])
    return told


def forget_progress() -> int:
    """Forget which exercises were solved here, in all notebooks, and return how many that were."""
    marks = [path for path in paths.progress_dir().glob("*.*") if path.is_file()]
    for mark in marks:
        mark.unlink()
    return len(marks)


def read_written(data: bytes) -> list[Any] | None:
    """Return what a person wrote: each cell's kind, text and pictures; None if it is no notebook.

    >>> read_written(b'{"cells": [{"cell_type": "code", "source": ["a = ", "1"], "outputs": []}]}')
    [('code', 'a = 1', None)]
    >>> read_written(b'{"cells": [{') is None
    True
    """
    try:
        return [
            (cell["cell_type"], "".join(cell["source"]), cell.get("attachments"))
            for cell in json.loads(data)["cells"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _keep(old: bytes | None, original: bytes, kept: Path) -> str:
    """Keep a notebook if a person wrote in it, and return what to tell of it."""
    if old is None:
        return "it was missing"
    written = read_written(old)
    if written == read_written(original):
        return "no cell had changed, so only outputs and the like are gone"
    _write(kept, _NEIGHBOUR.sub(b"../notebooks/", old))
    where = kept.relative_to(paths.CHECKOUT)
    if written is None:
        return f"what was there is no notebook any more, and is kept as {where}"
    return f"yours is kept as {where}"


def _find_name(text: str, known: Sequence[str]) -> str:
    """Return the notebook that a person means by a name, a number or a path."""
    name = Path(text).name.removesuffix(".ipynb")
    found = [each for each in known if name and each.startswith((f"{name}.", f"{name}_"))]
    if len(found) == 1:
        return found[0]
    raise SettingError(f"The lab has no notebook {text!r}; it has {', '.join(found or known)}")


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _write(path: Path, data: bytes) -> None:
    try:
        with files.replacing(path) as part:
            part.write_bytes(data)
    except FileError as error:
        fault = str(error).partition(";")[0]
        raise ResetError(
            f"{fault}; what you wrote is where it was. Make room, or copy the lab to a folder of "
            "yours."
        ) from error


def _read_originals(source: Path | None) -> dict[str, bytes]:
    """Return the notebooks as they came, by name in order."""
    try:
        if source is None:
            found = _read_archive(_pack_with_git())
        elif source.is_dir():
            found = {path.name: path.read_bytes() for path in source.glob("notebooks/*.ipynb")}
        else:
            found = _read_archive(source.read_bytes())
    except (OSError, zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
        raise ResetError(
            f"{source} cannot be read as a folder of the lab, a .zip or a .tar of it "
            f"({type(error).__name__})."
        ) from error
    broken = [name for name, data in found.items() if read_written(data) is None]
    if broken or not found:
        fault = f"{broken[0]} is no notebook" if broken else "there are no notebooks"
        raise ResetError(f"{fault} in {source or 'the last commit'}; give a fresh copy of the lab.")
    return dict(sorted(found.items()))


def _read_archive(data: bytes) -> dict[str, bytes]:
    """Return the notebooks in a .zip or a .tar, which is not unpacked."""
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            matches = filter(None, map(_MEMBER.fullmatch, archive.namelist()))
            return {match[1]: archive.read(match[0]) for match in matches}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {
            match[1]: file.read()
            for member in archive
            if (match := _MEMBER.fullmatch(member.name)) and (file := archive.extractfile(member))
        }


def _pack_with_git() -> bytes:
    lab = paths.CHECKOUT
    command = ["git", "archive", "HEAD", "notebooks"]
    try:
        return subprocess.run(command, cwd=lab, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"").decode(errors="replace").strip() or str(error)
        raise ResetError(
            f"git cannot read how the notebooks of {lab} came ({said.splitlines()[-1]}). Name the "
            f"archive that {lab.name} came in, or a fresh copy of the lab: "
            "`qwqlab reset --from FILE-OR-FOLDER`."
        ) from error
