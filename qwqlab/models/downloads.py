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
from huggingface_hub.utils.tqdm import tqdm

from ..errors import FetchError, QwqlabError
from ..files import (
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
from .hub import (
    TIMEOUT,
    Hub,
    RemoteFile,
    explaining,
    find_snapshot,
    link,
    list_files,
    write_ref,
)
from .local import check_disk

_TRIES = 5
_WAIT = 1.0
"""Seconds before a dropped connection is taken up again, doubled with each drop in a row."""

_SPLIT = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")

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


def fetch_repository(repository: Repository, hub: Hub | None = None) -> Snapshot:
    """Download the files that `repository.allow` names, and return where they are.

    Of GGUF files that a repository holds under two spellings only the first set is taken. Files in
    the cache are not fetched again; those of another program are hashed once. Progress goes to
    stderr. Without `hub`, the hub of the environment is used.

    Raise FetchError for access, disk, network, or a hash that differs.
    """
    hub = hub or Hub.from_environment()
    if hub.offline:
        found = find_fetched(repository, hub)
        if found is None or find_damaged(found):
            raise FetchError(
                f"{repository.repo_id} ({', '.join(repository.allow)}) is not complete in "
                f"{hub.cache}, and HF_HUB_OFFLINE is set: unset it to fetch."
            )
        return found
    commit, listed = list_files(hub, repository)
    files = _select(listed, repository)
    try:
        wanted = [file for file in files if not _is_here(hub, repository, file)]
        here = sum(_count_bytes(hub.part(repository, file)) for file in wanted)
        missing = sum(file.size for file in wanted) - here
        remedy = "set HF_HOME to a folder on a larger disk"
        check_disk(hub.cache, missing, repository.repo_id, remedy)
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
                with locked(hub.lock(repository, file)):
                    _fetch_file(hub, repository, commit, file, progress)
        folder = hub.folder(repository) / "snapshots" / commit
        for file in files:
            link(hub.blob(repository, file), folder / file.path)
        write_ref(hub, repository, commit)
    except QwqlabError:
        raise
    except OSError as error:
        raise FetchError(
            f"{hub.cache} cannot be written ({error.strerror or error}): make room there, or set "
            "HF_HOME to another folder, and run the same command to go on."
        ) from error
    return Snapshot(folder, tuple(file.path for file in files))


def find_fetched(repository: Repository, hub: Hub | None = None) -> Snapshot | None:
    """Return what `fetch_repository` would, if all of it is in the cache. Uses no network.

    Complete means that every pattern without wildcards has its file, every split GGUF all its
    parts, and every weight file that an index names is there; a model has weights.
    """
    folder = find_snapshot(hub or Hub.from_environment(), repository)
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


def find_damaged(snapshot: Snapshot) -> Path | None:
    """Return the first large file that does not have the sha256 in its blob's name, or None."""
    for path in snapshot.paths:
        blob = path.resolve()
        if len(blob.name) == 64 and sha256_of(blob) != blob.name:
            return path
    return None


def _select(listed: Sequence[RemoteFile], repository: Repository) -> list[RemoteFile]:
    """Return the listed files that the patterns allow; FetchError if none do."""
    allowed = {file.path: file for file in listed if _matches(file.path, repository)}
    if not allowed:
        raise FetchError(
            f"{repository.repo_id} at revision {repository.revision} has no file like "
            f"{', '.join(repository.allow)}; its {len(listed)} files may have been renamed."
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
            split = _SPLIT.fullmatch(path)
            sets.setdefault(split["stem"] if split else path, []).append(path)
    complete = [parts for parts in sets.values() if len(parts) == _count_parts(parts[0])]
    if sets and not complete:
        stem, parts = next(iter(sets.items()))
        raise FetchError(f"{stem} has {_count_parts(parts[0])} parts, of which {len(parts)} exist.")
    chosen = complete[0] if complete else []
    return [path for path in paths if path in chosen or not path.endswith(".gguf")]


def _count_parts(path: str) -> int:
    split = _SPLIT.fullmatch(path)
    return int(split["count"]) if split else 1


def _is_here(hub: Hub, repository: Repository, file: RemoteFile) -> bool:
    blob = hub.blob(repository, file)
    if not blob.exists():
        return False
    # huggingface_hub takes any file of the right size as good, so what others left is hashed once.
    if file.size >= _WORTH_TELLING and known_sha256(blob) is None:
        say(f"checking the hash of {file.path}, which is in {hub.cache} already")
    check = sha256_of if file.is_sha256 else git_blob_sha1
    if check(blob) == file.hash:
        return True
    say(f"{file.path} in {hub.cache} is damaged: fetching it again")
    blob.unlink()
    return False


def _fetch_file(
    hub: Hub, repository: Repository, commit: str, file: RemoteFile, progress: Any
) -> None:
    blob, part = hub.blob(repository, file), hub.part(repository, file)
    if blob.exists():
        return  # another process fetched it while this one waited for the lock
    part.parent.mkdir(parents=True, exist_ok=True)
    _download(hub, repository, commit, file, progress)
    if file.size >= _WORTH_TELLING:
        progress.write(f"checking the hash of {file.path}", sys.stderr)
    found = (read_sha256 if file.is_sha256 else git_blob_sha1)(part)
    if found != file.hash:
        part.unlink()
        raise FetchError(
            f"{file.path} arrived damaged and was thrown away: its hash is {found}, "
            f"the source states {file.hash}; run the same command to fetch it again."
        )
    part.replace(blob)
    if file.is_sha256:
        remember_sha256(blob, file.hash)


def _download(
    hub: Hub, repository: Repository, commit: str, file: RemoteFile, progress: Any
) -> None:
    """Fill the file's part; bytes that it holds are not asked for again.

    A dropped connection is taken up where it dropped, until it drops `_TRIES` times in a row
    without a byte. The content is not checked here. A FetchError leaves the part as it is.
    """
    part = hub.part(repository, file)
    part.touch()
    drops = 0
    with explaining(hub, repository, file.path):
        while (have := _count_bytes(part)) < file.size:
            try:
                _append(hub, repository, commit, file, progress)
            except httpx.TransportError as error:
                drops = 1 if _count_bytes(part) > have else drops + 1
                if drops == _TRIES:
                    raise
                progress.write(f"{error or type(error).__name__}: trying again", sys.stderr)
                time.sleep(_WAIT * 2 ** (drops - 1))


def _append(hub: Hub, repository: Repository, commit: str, file: RemoteFile, progress: Any) -> None:
    from huggingface_hub import get_session, hf_raise_for_status

    part = hub.part(repository, file)
    have = _count_bytes(part)
    headers = {**hub.headers, "accept-encoding": "identity", "range": f"bytes={have}-"}
    url = hub.file_url(repository, commit, file.path)
    with get_session().stream("GET", url, headers=headers, timeout=TIMEOUT) as response:
        hf_raise_for_status(response)
        if response.status_code != httpx.codes.PARTIAL_CONTENT:
            have = 0  # the server ignores ranges, and sends the whole file
        rest = int(response.headers.get("content-length", file.size - have))
        if rest != file.size - have:  # not the file, but perhaps a page that asks for a login
            raise FetchError(
                f"The server sends {rest} bytes for {file.path}, where its listing has "
                f"{file.size - have}; try again later."
            )
        with part.open("ab" if have else "wb") as out:
            for chunk in response.iter_raw():
                out.write(chunk)
                out.flush()  # what has arrived survives a kill
                progress.update(len(chunk))
    if _count_bytes(part) < file.size:
        raise httpx.RemoteProtocolError("the connection ended too early")


def _count_bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
