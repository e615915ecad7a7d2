"""What a model hub says of a repository, and where its files lie in the hub's own cache.

The cache layout is that of huggingface_hub: `blobs/<hash>` holds the bytes,
`snapshots/<commit>/<file>` links to them, `refs/<revision>` names the commit. So transformers and
every other user of that cache finds what the lab fetched, and the lab what they fetched.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from huggingface_hub import constants, get_token
from huggingface_hub.file_download import repo_folder_name

from .. import __version__
from ..errors import FetchError
from .entries import Repository
from .web import Subject, Web

COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Hub:
    """Which hub to ask, as whom, and where its files go."""

    endpoint: str
    cache: Path
    token: str | None = field(default=None, repr=False)
    offline: bool = False

    @classmethod
    def from_environment(cls) -> Hub:
        """As huggingface_hub reads it: HF_ENDPOINT, HF_HUB_CACHE or HF_HOME, HF_TOKEN or the token
        that `hf auth login` stored, HF_HUB_OFFLINE.

        These variables count as they were when huggingface_hub was first imported.
        """
        implicit = not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN
        return cls(
            endpoint=constants.ENDPOINT,
            cache=Path(constants.HF_HUB_CACHE),
            token=get_token() if implicit else None,
            offline=constants.HF_HUB_OFFLINE,
        )

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries. httpx leaves the token out when a redirect leaves the hub."""
        agent = {"user-agent": f"qwqlab/{__version__}"}
        return {**agent, "authorization": f"Bearer {self.token}"} if self.token else agent

    def subject(self, repository: Repository, file: str = "") -> Subject:
        """Names what is asked for, in messages."""
        return Subject(repository.repo_id, repository.revision, bool(self.token), file)

    def file_url(self, repository: Repository, commit: str, file: str) -> str:
        """Where the bytes of a file are."""
        place = (
            repository.repo_id if repository.kind == "model" else f"datasets/{repository.repo_id}"
        )
        return f"{self.endpoint}/{place}/resolve/{commit}/{quote(file)}"

    def folder(self, repository: Repository) -> Path:
        """The repository's folder in the cache."""
        return self.cache / repo_folder_name(repo_id=repository.repo_id, repo_type=repository.kind)

    def blob(self, repository: Repository, file: RemoteFile) -> Path:
        """Where the bytes of a file lie in the cache."""
        return self.folder(repository) / "blobs" / file.hash

    def pointer(self, repository: Repository, commit: str, file: str) -> Path:
        """Where programs look for a file: the link in the snapshot."""
        return self.folder(repository) / "snapshots" / commit / PurePosixPath(file)

    def lock(self, repository: Repository, file: RemoteFile) -> Path:
        """The lock file that huggingface_hub takes for the same bytes."""
        return self.cache / ".locks" / self.folder(repository).name / f"{file.hash}.lock"


@dataclass(frozen=True)
class RemoteFile:
    """A file as the source states it; hash is a sha256, or for small files git's blob sha1."""

    path: str
    size: int
    hash: str

    @property
    def is_sha256(self) -> bool:
        return len(self.hash) == 64


@dataclass(frozen=True)
class Listing:
    """The files of a repository at one commit."""

    commit: str
    files: tuple[RemoteFile, ...]


def list_files(web: Web, hub: Hub, repository: Repository) -> Listing:
    """Ask the hub for all files at the repository's revision, with sizes and hashes.

    One request, so everything belongs to one commit even if the branch moves meanwhile.
    """
    revision = quote(repository.revision, safe="")
    url = (
        f"{hub.endpoint}/api/{repository.kind}s/{repository.repo_id}/revision/{revision}?blobs=true"
    )
    subject = hub.subject(repository)
    answer = web.read_json(url, subject)
    try:
        files = tuple(_read_file(sibling) for sibling in answer["siblings"])
        commit = str(answer["sha"])
    except (KeyError, TypeError, ValueError) as error:
        raise FetchError(
            f"The listing of {subject} lacks what it must state ({error}); check HF_ENDPOINT."
        ) from error
    if not COMMIT.fullmatch(commit):
        raise FetchError(f"The listing of {subject} names no commit but {commit[:60]!r}.")
    return Listing(commit, files)


def _read_file(sibling: dict[str, Any]) -> RemoteFile:
    path = str(sibling["rfilename"])
    parts = path.split("/")
    # A listing must not be able to write outside the snapshot.
    if any(part in ("", ".", "..") for part in parts) or "\\" in path or "\0" in path:
        raise ValueError(f"unsafe file name {path!r}")
    lfs = sibling.get("lfs")
    size = int(lfs["size"] if lfs else sibling["size"])
    digest = str(lfs["sha256"] if lfs else sibling["blobId"])
    if size < 0 or not (SHA256 if lfs else COMMIT).fullmatch(digest):
        raise ValueError(f"no size and hash for {path!r}")
    return RemoteFile(path, size, digest)


def matches(path: str, allow: tuple[str, ...]) -> bool:
    """Whether a file's path fits one of the patterns; `*` also spans folders.

    >>> matches("BF16/model-00001-of-00002.gguf", ("*.gguf",))
    True
    """
    return any(fnmatchcase(path, pattern) for pattern in allow)


def link(blob: Path, pointer: Path) -> None:
    """Make the snapshot's entry for a blob: a relative link, or a copy where there are no links."""
    if pointer.exists() and pointer.samefile(blob):
        return
    pointer.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=pointer.parent, prefix=".qwqlab-") as folder:
        staged = Path(folder) / "link"
        try:
            if constants.HF_HUB_DISABLE_SYMLINKS:
                raise OSError
            # The text of a link counts from where it ends up, one folder above the staging place.
            staged.symlink_to(os.path.relpath(blob, pointer.parent))
        except OSError:
            shutil.copyfile(blob, staged)
        staged.replace(pointer)


def write_ref(hub: Hub, repository: Repository, commit: str) -> None:
    """Note which commit a branch or tag stood at, as huggingface_hub does."""
    if repository.revision == commit:
        return
    ref = hub.folder(repository) / "refs" / repository.revision
    if ref.exists() and ref.read_text(encoding="utf-8") == commit:
        return
    ref.parent.mkdir(parents=True, exist_ok=True)
    staged = ref.with_name(f"{ref.name}.{os.getpid()}.tmp")
    staged.write_text(commit, encoding="utf-8")
    staged.replace(ref)


def find_snapshot(hub: Hub, repository: Repository) -> Path | None:
    """The snapshot folder in the cache for the repository's revision, asking nobody; else None."""
    commit = repository.revision
    if not COMMIT.fullmatch(commit):
        with contextlib.suppress(OSError, ValueError):
            ref = hub.folder(repository) / "refs" / repository.revision
            commit = ref.read_text(encoding="utf-8").strip()
    folder = hub.folder(repository) / "snapshots" / commit
    return folder if COMMIT.fullmatch(commit) and folder.is_dir() else None
