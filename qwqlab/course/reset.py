"""Put notebooks back as they came, and keep aside what a student wrote in them.

As they came is how git's HEAD has them, or an archive or a folder of the lab that is named. What
counts as written are the cells: their kinds, texts and pasted pictures. Outputs alone are removed
and not kept, for running the cells brings them back, and runs and adapters have stores of their
own; a notebook that was written in is kept whole, outputs included.
"""

from __future__ import annotations

import contextlib
import json
import os
import posixpath
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from .. import paths
from ..errors import ResetError, SettingError
from .pristine import read_pristine

LINK = re.compile(r"(\]\(\s*<?)([^)\s>]+)")
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:|[#/]", re.IGNORECASE)

BECAUSE = {
    "written": "yours is kept as {kept}",
    "broken": "what was there is no notebook any more, and is kept as {kept}",
    "run": "no cell had changed, so only outputs and the like are gone",
    "missing": "it was missing",
}


@dataclass(frozen=True)
class Reset:
    """A notebook that was put back: its file's name, a key of BECAUSE, and where the old one is."""

    name: str
    why: str
    kept: Path | None = None

    def sentence(self) -> str:
        """In one line, the kept file by its path in the lab's folder."""
        kept = self.kept and os.path.relpath(self.kept, paths.CHECKOUT)
        return f"{self.name} is as it came; {BECAUSE[self.why].format(kept=kept)}"


def reset(names: Sequence[str] = (), source: Path | None = None) -> list[Reset]:
    """Put these notebooks back, or all of them, and give those that had changed.

    names:   a file's name, with or without `.ipynb`, its number, or its path.
    source:  a folder of the lab or an archive of it, instead of git's HEAD.

    Each file is replaced whole, and none before all that is kept has been written, into a new
    folder under `kept_dir()`. Other notebooks in the folder are left alone. SettingError for a
    name that the lab has not, ResetError where the notebooks as they came are not to be had, or
    something cannot be read or written.
    """
    pristine = read_pristine(paths.notebooks_dir(), source)
    chosen = [_find_name(name, tuple(pristine)) for name in names] or list(pristine)
    now = {name: _read(paths.notebooks_dir() / name) for name in dict.fromkeys(chosen)}
    why = {
        name: _compare(old, pristine[name])
        for name, old in now.items()
        if old is None or _ignore_line_ends(old) != _ignore_line_ends(pristine[name])
    }
    with _staged({name: pristine[name] for name in why}) as staged:
        kept = _keep({name: now[name] or b"" for name in why if why[name] in ("written", "broken")})
        try:
            for name, part in staged.items():
                _replace(part, paths.notebooks_dir() / name, now[name])
        except ResetError as error:
            places = {str(path.parent) for path in kept.values()}
            raise ResetError(f"{error} Kept so far: {''.join(places) or 'nothing'}.") from error
    return [Reset(name, reason, kept.get(name)) for name, reason in why.items()]


def forget_progress() -> int:
    """Forget which exercises were solved here, in all notebooks, and give how many that were.

    ResetError where a mark cannot be deleted.
    """
    marks = [path for path in paths.progress_dir().glob("*.*") if path.is_file()]
    for mark in marks:
        try:
            mark.unlink(missing_ok=True)
        except OSError as error:
            raise ResetError(f"{mark} cannot be deleted: {error.strerror}; delete it.") from error
    return len(marks)


def _find_name(text: str, known: Sequence[str]) -> str:
    """The notebook that a person means by a name, a number or a path."""
    path = paths.from_user(text)
    name = path.name.removesuffix(".ipynb")
    if path.name != text and path.resolve().parent != paths.notebooks_dir().resolve():
        raise SettingError(f"{text} is not in {paths.notebooks_dir()}; name a notebook of the lab")
    found = [each for each in known if name and each.startswith((f"{name}.", f"{name}_"))]
    if len(found) == 1:
        return found[0]
    near = found or get_close_matches(f"{name}.ipynb", known, 3, 0.7) or known
    raise SettingError(f"The lab has no notebook {text!r}; it has {', '.join(near)}")


def _ignore_line_ends(data: bytes) -> bytes:
    """For git may write those of Windows, and JupyterLab does not."""
    return data.replace(b"\r\n", b"\n")


def _compare(old: bytes | None, pristine: bytes) -> str:
    if old is None:
        return "missing"
    written = read_written(old)
    if written is None:
        return "broken"
    return "run" if written == read_written(pristine) else "written"


def read_written(data: bytes) -> list[Any] | None:
    """What a person wrote in a notebook: of each cell kind, text and pictures; None if it is none.

    >>> read_written(b'{"cells": [{"cell_type": "code", "source": ["a = ", "1"], "outputs": []}]}')
    [('code', 'a = 1', None)]
    >>> read_written(b'{"cells": [{') is None
    True
    """
    try:
        cells = json.loads(data)["cells"]
        return [
            (cell["cell_type"], _join(cell["source"]), cell.get("attachments")) for cell in cells
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _join(source: Any) -> str:
    return source if isinstance(source, str) else "".join(source)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ResetError(
            f"{path} cannot be read: {error.strerror}; nothing was changed."
        ) from error


@contextlib.contextmanager
def _staged(files: Mapping[str, bytes]) -> Iterator[dict[str, Path]]:
    """The files, written beside the notebooks under other names, and gone at the end."""
    folder = paths.notebooks_dir()
    staged = {name: folder / f".{name}.{os.getpid()}" for name in files}
    try:
        try:
            for name, part in staged.items():
                folder.mkdir(exist_ok=True)
                part.write_bytes(files[name])
        except OSError as error:
            raise ResetError(
                f"{folder} cannot be written: {error.strerror}; copy the lab to a folder of yours."
            ) from error
        yield staged
    finally:
        for part in staged.values():
            with contextlib.suppress(OSError):
                part.unlink()


def _keep(files: Mapping[str, bytes]) -> dict[str, Path]:
    """Write each into one new folder, whole or not at all."""
    if not files:
        return {}
    folder = paths.kept_dir()
    try:
        folder = _make_folder()
        for name, data in files.items():
            part = folder / f".{name}"
            try:
                part.write_bytes(_mend_links(data))
                part.replace(folder / name)
            finally:
                part.unlink(missing_ok=True)
    except OSError as error:
        raise ResetError(
            f"{folder} cannot be written: {error.strerror}; nothing was reset, since what you "
            "wrote could not be kept."
        ) from error
    return {name: folder / name for name in files}


def _make_folder() -> Path:
    """A folder that was not there, named by the time of day here."""
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    paths.kept_dir().mkdir(exist_ok=True)
    for number in range(1, 1000):
        folder = paths.kept_dir() / (stamp if number == 1 else f"{stamp}_{number}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise FileExistsError(0, "a thousand folders of this second are there", str(folder))


def _replace(part: Path, target: Path, seen: bytes | None) -> None:
    if _read(target) != seen:
        raise ResetError(f"{target} was saved meanwhile; it is left alone, run the same again.")
    try:
        part.replace(target)
    except OSError as error:
        raise ResetError(f"{target} cannot be replaced: {error.strerror}.") from error


def _mend_links(data: bytes) -> bytes:
    """A notebook whose links lead where they led, though it lies two folders below the lab's.

    Where there is nothing to mend it is the same to the byte.
    """
    if read_written(data) is None:
        return data
    notebook = json.loads(data)
    changed = False
    for cell in notebook["cells"]:
        if cell["cell_type"] != "markdown":
            continue
        old = _join(cell["source"])
        new = LINK.sub(lambda match: match[1] + _mend(match[2]), old)
        if new != old:
            cell["source"], changed = new.splitlines(keepends=True), True
    if not changed:
        return data
    # A lone surrogate, which a model can print, becomes its escape: JSON's is the same.
    text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "backslashreplace")


def _mend(target: str) -> str:
    leads = not SCHEME.match(target) and unquote(target.split("#")[0])
    if not leads or not (paths.notebooks_dir() / leads).exists():
        return target
    return posixpath.normpath(f"../../{paths.notebooks_dir().name}/{target}")
