"""Fetch a repository's files into the hub's cache: listed, disk-checked, resumed, hash-checked."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import hashes
from ..errors import FetchError
from ..progress import PrintedProgress, say
from .download import Progress, Transfer, check_disk, count_bytes, download, locked
from .entries import Repository
from .hub import (
    SHA256,
    Hub,
    Listing,
    RemoteFile,
    find_snapshot,
    link,
    list_files,
    matches,
    write_ref,
)
from .web import Patience, Web

SPLIT = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")

WORTH_TELLING = 1_000_000_000


@dataclass(frozen=True)
class Snapshot:
    """Files of one commit in the hub's cache: their folder, and their paths in it."""

    folder: Path
    files: tuple[str, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(self.folder / file for file in self.files)


def fetch_repository(
    repository: Repository,
    *,
    hub: Hub | None = None,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
    say: Callable[[str], None] = say,
    patience: Patience | None = None,
) -> Snapshot:
    """Bring the files that `repository.allow` names here, and say where they are.

    Of GGUF files that a repository holds under two spellings only the first set is taken. Bytes
    that are here are not asked for again; blobs that others fetched are used after their hash is
    checked. Without progress, lines or a bar on stderr; without hub, the environment's.

    FetchError names what the person can do: access, disk, network, a hash that differs. Stopped on
    request it is a FetchStoppedError, and the next call goes on from there.
    """
    hub = hub or Hub.from_environment()
    if hub.offline:
        found = find_fetched(repository, hub)
        if found is None:
            raise FetchError(
                f"{repository.repo_id} ({', '.join(repository.allow)}) is not complete in "
                f"{hub.cache}, and HF_HUB_OFFLINE is set: unset it to fetch."
            )
        if damaged := find_damaged(found):
            raise FetchError(f"{damaged} is damaged: unset HF_HUB_OFFLINE and fetch it again.")
        return found
    transfer = Transfer(0, progress or PrintedProgress(repository.repo_id), stop)
    with Web(hub.headers, patience or Patience(), transfer.pause, say) as web:
        listing = list_files(web, hub, repository)
        files = select(listing, repository)
        wanted = [file for file in files if not _is_here(hub, repository, file, say, transfer)]
        transfer.total = sum(file.size for file in files)
        transfer.skip(sum(file.size for file in files if file not in wanted))
        missing = sum(file.size - count_bytes(_part(hub, repository, file)) for file in wanted)
        check_disk(
            hub.cache, missing, repository.repo_id, "set HF_HOME to a folder on a larger disk"
        )
        try:
            for file in wanted:
                _fetch_file(web, hub, repository, listing.commit, file, transfer, say)
            for file in files:
                pointer = hub.pointer(repository, listing.commit, file.path)
                link(hub.blob(repository, file), pointer)
            write_ref(hub, repository, listing.commit)
        except FetchError:
            raise
        except OSError as error:
            raise FetchError(
                f"{hub.cache} cannot be written ({error.strerror or error}): "
                "set HF_HOME to a folder of yours."
            ) from error
    folder = hub.folder(repository) / "snapshots" / listing.commit
    return Snapshot(folder, tuple(file.path for file in files))


def find_fetched(repository: Repository, hub: Hub | None = None) -> Snapshot | None:
    """What `fetch_repository` would give, if all of it is in the cache; asks nobody.

    Complete means that every pattern without wildcards has its file, every split GGUF all its
    parts, and every weight file that an index names is there; a model has weights.
    """
    hub = hub or Hub.from_environment()
    folder = find_snapshot(hub, repository)
    if folder is None:
        return None
    present = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    try:
        files = choose([path for path in present if matches(path, repository.allow)])
    except FetchError:
        return None
    weights = [path for path in files if path.endswith((".gguf", ".safetensors"))]
    exact = [pattern for pattern in repository.allow if not re.search(r"[*?\[]", pattern)]
    indexed = {
        name
        for index in files
        if index.endswith(".safetensors.index.json")
        for name in _read_weight_files(folder, index)
    }
    there = weights if repository.kind == "model" else files
    complete = bool(there) and not set(exact) - set(files) and not indexed - set(files)
    return Snapshot(folder, tuple(files)) if complete else None


def _read_weight_files(folder: Path, index: str) -> list[str]:
    """The files that an index of weights names, by their paths in the folder."""
    weight_map = hashes.read_json(folder / index).get("weight_map")
    names = weight_map.values() if isinstance(weight_map, dict) else ()
    return [str(Path(index).parent / str(name)) for name in names]


def find_damaged(snapshot: Snapshot) -> Path | None:
    """The first large file whose bytes do not have the hash that names its blob; None if all do."""
    for path in snapshot.paths:
        blob = path.resolve()
        if SHA256.fullmatch(blob.name) and hashes.sha256_of(blob) != blob.name:
            return path
    return None


def select(listing: Listing, repository: Repository) -> tuple[RemoteFile, ...]:
    """The listed files that the patterns allow; FetchError if none do."""
    allowed = {file.path: file for file in listing.files if matches(file.path, repository.allow)}
    if not allowed:
        raise FetchError(
            f"{repository.repo_id} at revision {repository.revision} has no file like "
            f"{', '.join(repository.allow)}; its {len(listing.files)} files may have been renamed."
        )
    return tuple(allowed[path] for path in choose(sorted(allowed)))


def choose(paths: Sequence[str]) -> list[str]:
    """All paths, but of the GGUF files one set: a file, or all parts of one split.

    FetchError if a set of parts is incomplete.

    >>> choose(["b-00001-of-00002.gguf", "b-00002-of-00002.gguf", "c.gguf", "config.json"])
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


def _fetch_file(
    web: Web,
    hub: Hub,
    repository: Repository,
    commit: str,
    file: RemoteFile,
    transfer: Transfer,
    say: Callable[[str], None],
) -> None:
    blob, part = hub.blob(repository, file), _part(hub, repository, file)
    blob.parent.mkdir(parents=True, exist_ok=True)
    with locked(hub.lock(repository, file), transfer):
        if blob.exists():
            # Another process brought it while this one waited.
            transfer.skip(file.size)
            return
        url = hub.file_url(repository, commit, file.path)
        download(web, url, part, file.size, hub.subject(repository, file.path), transfer)
        if file.size >= WORTH_TELLING:
            say(f"checking the hash of {file.path}")
        _verify(part, file, transfer)
        part.replace(blob)
        if file.is_sha256:
            hashes.remember_sha256(blob, file.hash)


def _verify(part: Path, file: RemoteFile, transfer: Transfer) -> None:
    check = hashes.read_sha256 if file.is_sha256 else hashes.git_blob_sha1
    found = check(part, lambda n_bytes: transfer.check())
    if found != file.hash:
        part.unlink()
        raise FetchError(
            f"{file.path} arrived damaged and was thrown away: its hash is {found}, "
            f"the source states {file.hash}; run the same command to fetch it again."
        )


def _is_here(
    hub: Hub,
    repository: Repository,
    file: RemoteFile,
    say: Callable[[str], None],
    transfer: Transfer,
) -> bool:
    blob = hub.blob(repository, file)
    if not blob.exists():
        return False
    # huggingface_hub takes any file of the right size as good, so what others left is hashed once.
    if file.size >= WORTH_TELLING and hashes.known_sha256(blob) is None:
        say(f"checking the hash of {file.path}, which is in {hub.cache} already")
    check = hashes.sha256_of if file.is_sha256 else hashes.git_blob_sha1
    if (
        blob.stat().st_size == file.size
        and check(blob, lambda n_bytes: transfer.check()) == file.hash
    ):
        return True
    say(f"{file.path} in {hub.cache} is damaged: fetching it again")
    blob.unlink()
    return False


def _part(hub: Hub, repository: Repository, file: RemoteFile) -> Path:
    blob = hub.blob(repository, file)
    return blob.with_name(f"{blob.name}.incomplete")
