"""Download a repository's files into the hub's cache, hash-checked, and resume after a stop.

The bytes of a file go into a part that only grows. Its name carries the hash of the whole file, so
a new process knows what the part is meant to become, asks for the rest alone, and lets the hash
decide. huggingface_hub starts such a file from zero, and accepts any file of the right size.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import httpx
from huggingface_hub import constants, get_session, hf_raise_for_status
from huggingface_hub.utils.tqdm import tqdm

from ..errors import FetchError
from ..files import (
    check_disk,
    git_blob_sha1,
    known_sha256,
    locked,
    read_json,
    read_sha256,
    remember_sha256,
    sha256_of,
)
from ..progress import say
from .catalog import Repository
from .finding import find_cache, find_folder
from .gguf import SPLIT
from .hub import (
    TIMEOUT,
    RemoteFile,
    explaining,
    find_snapshot,
    link_snapshot,
    list_files,
    make_headers,
)

_TRIES = 5
_WAIT = 1.0
"""Seconds before a dropped connection is taken up again, doubled with each drop in a row."""

_WORTH_TELLING = 1_000_000_000
"""Bytes of a file whose hash takes seconds, so that we tell the reader."""


@dataclass(frozen=True)
class Snapshot:
    """Files of one commit in the hub's cache: their folder, and their paths in it."""

    folder: Path
    files: tuple[str, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(self.folder / file for file in self.files)


def fetch_repository(repository: Repository) -> Snapshot:
    """Download the files that `repository.allow` names, and return where they are.

    What is whole in the cache is taken from there, and nobody is asked. Of GGUF files that a
    repository holds under two spellings only the first set is fetched. Files that another program
    left are hashed once. Progress goes to stderr.

    Raise FetchError for access, disk, network, or a hash that differs.
    """
    found = find_fetched(repository)
    if found and all(_is_intact(path.resolve()) for path in found.paths):
        return found
    if constants.HF_HUB_OFFLINE:
        raise FetchError(
            f"{repository.repo_id} ({', '.join(repository.allow)}) is not complete in "
            f"{find_cache()}, and HF_HUB_OFFLINE is set: unset it to fetch."
        )
    commit, listed = list_files(repository)
    files = _select(listed, repository)
    try:
        _fetch_missing(repository, files)
        folder = link_snapshot(repository, commit, files)
    except FetchError:
        raise
    except OSError as error:
        raise FetchError(
            f"{find_cache()} cannot be written ({error.strerror or error}): make room there, or "
            "set HF_HOME to another folder, and run the same command to go on."
        ) from error
    return Snapshot(folder, tuple(file.path for file in files))


def _fetch_missing(repository: Repository, files: Sequence[RemoteFile]) -> None:
    wanted = [file for file in files if not _is_here(file)]
    missing = sum(file.size - file.n_here for file in wanted)
    remedy = "set HF_HOME to a folder on a larger disk"
    check_disk(find_cache(), missing, repository.repo_id, remedy)
    total = sum(file.size for file in files)
    with tqdm(  # type: ignore[no-untyped-call]
        desc=repository.repo_id,
        total=total,
        initial=total - missing,
        unit="B",
        unit_scale=True,
        mininterval=1.0,
        disable=not wanted,
    ) as progress:
        for file in wanted:
            # The lock that huggingface_hub takes for the same bytes.
            lock = find_cache() / ".locks" / find_folder(repository).name / f"{file.hash}.lock"
            with locked(lock), explaining(repository, file.path):
                _fetch_file(file, progress)


def find_fetched(repository: Repository) -> Snapshot | None:
    """Return what `fetch_repository` would, if all of it is in the cache. Uses no network.

    Complete means that every pattern without wildcards has its file, every split GGUF all its
    parts, and every weight file that an index names is there; a model has weights.
    """
    folder = find_snapshot(repository)
    if folder is None:
        return None
    present = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    try:
        files = _choose([path for path in present if _matches(path, repository)])
    except FetchError:
        return None
    weights = [path for path in files if path.endswith((".gguf", ".safetensors"))]
    named = {pattern for pattern in repository.allow if not re.search(r"[*?\[]", pattern)}
    for index in files:
        if index.endswith(".safetensors.index.json"):
            weight_map = read_json(folder / index).get("weight_map", {})
            named |= {str(Path(index).parent / name) for name in weight_map.values()}
    whole = bool(weights if repository.kind == "model" else files) and named <= set(files)
    return Snapshot(folder, tuple(files)) if whole else None


def _select(listed: Sequence[RemoteFile], repository: Repository) -> list[RemoteFile]:
    """Return the listed files that the patterns allow; FetchError if none do."""
    allowed = {file.path: file for file in listed if _matches(file.path, repository)}
    if not allowed:
        raise FetchError(
            f"{repository.repo_id} has no file like {', '.join(repository.allow)}; its "
            f"{len(listed)} files may have been renamed."
        )
    return [allowed[path] for path in _choose(sorted(allowed))]


def _matches(path: str, repository: Repository) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in repository.allow)


def _choose(paths: Sequence[str]) -> list[str]:
    """Return all paths, but of the GGUF files one set: a file, or all parts of one split.

    FetchError if a set of parts is incomplete.

    >>> _choose(["b-00001-of-00002.gguf", "b-00002-of-00002.gguf", "c.gguf", "config.json"])
    ['b-00001-of-00002.gguf', 'b-00002-of-00002.gguf', 'config.json']
    """
    sets: dict[str, list[str]] = {}
    for path in paths:
        if path.endswith(".gguf"):
            split = SPLIT.fullmatch(path)
            sets.setdefault(split["stem"] if split else path, []).append(path)
    complete = [parts for parts in sets.values() if len(parts) == _count_parts(parts[0])]
    if sets and not complete:
        stem, parts = next(iter(sets.items()))
        raise FetchError(f"{stem} has {_count_parts(parts[0])} parts, of which {len(parts)} exist.")
    chosen = complete[0] if complete else []
    return [path for path in paths if path in chosen or not path.endswith(".gguf")]


def _count_parts(path: str) -> int:
    split = SPLIT.fullmatch(path)
    return int(split["count"]) if split else 1


def _is_here(file: RemoteFile) -> bool:
    if not file.blob.exists():
        return False
    if _is_intact(file.blob):
        return True
    say(f"{file.path} in {find_cache()} is damaged: fetching it again")
    file.blob.unlink()
    return False


def _is_intact(blob: Path) -> bool:
    """Return whether a file of the cache has the hash that is its name.

    huggingface_hub takes any file of the right size as good, so what others left is hashed once.
    """
    if blob.stat().st_size >= _WORTH_TELLING and known_sha256(blob) is None:
        say(f"checking the hash of {blob}, which is here already")
    return (sha256_of if _is_sha256(blob.name) else git_blob_sha1)(blob) == blob.name


def _is_sha256(name: str) -> bool:
    return len(name) == 64


def _fetch_file(file: RemoteFile, progress: Any) -> None:
    if file.blob.exists():
        return  # another process fetched it while this one waited for the lock
    _download(file, progress)
    if file.size >= _WORTH_TELLING:
        progress.write(f"checking the hash of {file.path}", sys.stderr)
    found = (read_sha256 if _is_sha256(file.hash) else git_blob_sha1)(file.part)
    if found != file.hash:
        file.part.unlink()
        raise FetchError(
            f"{file.path} arrived damaged and was thrown away: its hash is {found}, "
            f"the source states {file.hash}; run the same command to fetch it again."
        )
    file.part.replace(file.blob)
    if _is_sha256(file.hash):
        remember_sha256(file.blob, file.hash)


def _download(file: RemoteFile, progress: Any) -> None:
    """Fill the file's part; bytes that it holds are not asked for again.

    A dropped connection is taken up where it dropped, until it drops `_TRIES` times in a row
    without a byte. The content is not checked here. A FetchError leaves the part as it is.
    """
    file.part.parent.mkdir(parents=True, exist_ok=True)
    file.part.touch()
    drops = 0
    while (have := file.n_here) < file.size:
        try:
            _append(file, progress)
        except httpx.TransportError as error:
            drops = 1 if file.n_here > have else drops + 1
            if drops == _TRIES:
                raise
            progress.write(f"{error or type(error).__name__}: trying again", sys.stderr)
            time.sleep(_WAIT * 2 ** (drops - 1))


def _append(file: RemoteFile, progress: Any) -> None:
    have = file.n_here
    headers = {**make_headers(), "accept-encoding": "identity", "range": f"bytes={have}-"}
    with get_session().stream("GET", file.url, headers=headers, timeout=TIMEOUT) as response:
        hf_raise_for_status(response)
        if response.status_code != httpx.codes.PARTIAL_CONTENT:
            have = 0  # the server ignores ranges, and sends the whole file
        rest = int(response.headers.get("content-length", file.size - have))
        if rest != file.size - have:  # not the file, but perhaps a page that asks for a login
            raise FetchError(
                f"The server sends {rest} bytes for {file.path}, where its listing has "
                f"{file.size - have}; try again later."
            )
        with file.part.open("ab" if have else "wb") as out:
            for chunk in response.iter_raw():
                out.write(chunk)
                out.flush()  # what has arrived survives a kill
                progress.update(len(chunk))
    if file.n_here < file.size:
        raise httpx.RemoteProtocolError("the connection ended too early")
