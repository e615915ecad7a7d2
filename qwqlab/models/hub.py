"""A model hub: what a repository holds, and where its files lie in the hub's own cache.

The cache has the layout of huggingface_hub: `blobs/<hash>` holds the bytes,
`snapshots/<commit>/<file>` links to them, `refs/<revision>` names the commit. So transformers and
every other program that uses this cache finds what the lab fetched, and the lab what they fetched.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import httpx
from huggingface_hub import constants, get_token, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from huggingface_hub.file_download import repo_folder_name

from .. import __version__
from ..errors import FetchError, first_lines
from .catalog import Repository

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

TIMEOUT = 10.0
"""Seconds without a byte after which a connection counts as dropped."""


@dataclass(frozen=True)
class Hub:
    """Which hub to ask, as whom, and where its files go."""

    endpoint: str
    cache: Path
    token: str | None = field(default=None, repr=False)
    offline: bool = False

    @classmethod
    def from_environment(cls) -> Hub:
        """Return the hub that huggingface_hub itself would use.

        It reads HF_ENDPOINT, HF_HUB_CACHE or HF_HOME, HF_TOKEN or the token that `hf auth login`
        stored, and HF_HUB_OFFLINE, as they were when huggingface_hub was first imported.
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
        """Headers of every request. httpx drops the token when a redirect leaves the hub."""
        agent = {"user-agent": f"qwqlab/{__version__}"}
        return {**agent, "authorization": f"Bearer {self.token}"} if self.token else agent

    def file_url(self, repository: Repository, commit: str, file: str) -> str:
        """Return the address of a file's bytes."""
        folder = "" if repository.kind == "model" else f"{repository.kind}s/"
        return f"{self.endpoint}/{folder}{repository.repo_id}/resolve/{commit}/{quote(file)}"

    def folder(self, repository: Repository) -> Path:
        """Return the repository's folder in the cache."""
        return self.cache / repo_folder_name(repo_id=repository.repo_id, repo_type=repository.kind)

    def blob(self, repository: Repository, file: RemoteFile) -> Path:
        """Return where the bytes of a file lie in the cache."""
        return self.folder(repository) / "blobs" / file.hash

    def part(self, repository: Repository, file: RemoteFile) -> Path:
        """Return where its first bytes lie while the rest is still to come."""
        return self.blob(repository, file).with_suffix(".incomplete")

    def lock(self, repository: Repository, file: RemoteFile) -> Path:
        """Return the lock file that huggingface_hub takes for the same bytes."""
        return self.cache / ".locks" / self.folder(repository).name / f"{file.hash}.lock"


@dataclass(frozen=True)
class RemoteFile:
    """A file as the hub states it; hash is a sha256, or for small files git's blob sha1."""

    path: str
    size: int
    hash: str

    @property
    def is_sha256(self) -> bool:
        return len(self.hash) == 64


def list_files(hub: Hub, repository: Repository) -> tuple[str, list[RemoteFile]]:
    """Return the commit of the repository's revision, and its files with sizes and hashes.

    It is one request, so that all of it belongs to one commit.
    """
    from huggingface_hub import HfApi

    api = HfApi(hub.endpoint, token=False, headers=hub.headers)
    ask = api.model_info if repository.kind == "model" else api.dataset_info
    name, revision = repository.repo_id, repository.revision
    try:
        with explaining(hub, repository):
            info = ask(name, revision=revision, files_metadata=True, timeout=TIMEOUT)
    except (ValueError, KeyError, TypeError) as error:
        raise FetchError(
            f"The answer for {name} is no listing ({first_lines(error)}): check HF_ENDPOINT, and "
            "whether this network wants you to log in first."
        ) from error
    return str(info.sha), [_read_file(sibling) for sibling in info.siblings or ()]


def _read_file(sibling: RepoSibling) -> RemoteFile:
    path, lfs = sibling.rfilename, sibling.lfs
    size, name = (lfs.size, lfs.sha256) if lfs else (sibling.size, sibling.blob_id)
    # A listing must not be able to write outside the snapshot.
    if not str(name).isalnum() or any(part in ("", ".", "..") for part in path.split("/")):
        raise FetchError(f"The hub lists an unsafe file name, {path!r}: nothing was fetched.")
    return RemoteFile(path, int(size or 0), str(name))


@contextmanager
def explaining(hub: Hub, repository: Repository, file: str = "") -> Iterator[None]:
    """Turn the hub's refusal, or a network that fails, into one sentence: FetchError."""
    try:
        yield
    except HfHubHTTPError as error:
        raise FetchError(_explain(error.response, hub, repository, file)) from error
    except (httpx.RequestError, httpx.InvalidURL) as error:
        reason = first_lines(error)
        raise FetchError(
            f"No complete answer from {hub.endpoint} ({reason}): check the network and HF_ENDPOINT,"
            " and run the same command to go on; what has arrived is kept."
        ) from error


def _explain(response: httpx.Response, hub: Hub, repository: Repository, file: str) -> str:
    status, code = response.status_code, response.headers.get("x-error-code", "")
    repo = repository.repo_id
    what = f"{file} of {repo}" if file else f"repository {repo}"
    if code == "RevisionNotFound":
        what = f"revision {repository.revision} of {repo}"
    if code == "GatedRepo":
        remedy = "" if hub.token else ", then set HF_TOKEN to your token"
        return f"{repo} is gated (HTTP {status}): accept its licence on its page{remedy}."
    if status in (401, 403):
        return (
            f"You may not read {repo} (HTTP {status}): set HF_TOKEN to a token that may, accept the"
            " model's licence on its page, and check the name."
        )
    if status == 404:
        return f"There is no {what} (HTTP 404); check the name."
    if status == 429 or status >= 500:
        return (
            f"The hub is too busy for {what} (HTTP {status}): run the same command later to go on; "
            "what has arrived is kept."
        )
    return f"The hub answered HTTP {status} for {what}."


def link(blob: Path, pointer: Path) -> None:
    """Make the snapshot's entry for a blob: a relative link."""
    if not pointer.exists():
        pointer.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):  # another process was first
            pointer.symlink_to(os.path.relpath(blob, pointer.parent))


def write_ref(hub: Hub, repository: Repository, commit: str) -> None:
    """Note the commit of a branch or tag, as huggingface_hub does."""
    if repository.revision != commit:
        ref = hub.folder(repository) / "refs" / repository.revision
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(commit, encoding="utf-8")


def find_snapshot(hub: Hub, repository: Repository) -> Path | None:
    """Return the folder in the cache for the repository's revision, or None. Uses no network."""
    try:
        folder = snapshot_download(
            repository.repo_id,
            repo_type=repository.kind,
            revision=repository.revision,
            cache_dir=hub.cache,
            local_files_only=True,
        )
    except LocalEntryNotFoundError:
        return None
    return Path(folder)
