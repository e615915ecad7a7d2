"""A model hub: what a repository holds, and where its files lie in the hub's own cache.

The cache has the layout of huggingface_hub: `blobs/<hash>` holds the bytes,
`snapshots/<commit>/<file>` links to them, `refs/main` names the commit. So transformers and
every other program that uses this cache finds what the lab fetched, and the lab what they fetched.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx
from huggingface_hub import HfApi, constants, get_token, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # no __all__

from .. import __version__
from ..errors import FetchError, first_lines
from .catalog import Repository
from .finding import find_cache, find_folder

TIMEOUT = 10.0
"""Seconds without a byte after which a connection counts as dropped."""


@dataclass(frozen=True)
class RemoteFile:
    """A file as the hub states it, and where its bytes lie in the cache once they are here.

    path: its place in the repository.
    hash: a sha256, or for small files git's blob sha1.
    """

    path: str
    size: int
    hash: str
    url: str
    blob: Path

    @property
    def part(self) -> Path:
        """The file of its first bytes, while the rest is still to come."""
        return self.blob.with_suffix(".incomplete")

    @property
    def n_here(self) -> int:
        """Bytes that the part holds."""
        return self.part.stat().st_size if self.part.exists() else 0


def make_headers() -> dict[str, str]:
    """Return the headers of a request, with the token of HF_TOKEN or `hf auth login`.

    httpx drops the token when a redirect leaves the hub.
    """
    return dict(build_hf_headers(library_name="qwqlab", library_version=__version__))


def list_files(repository: Repository) -> tuple[str, list[RemoteFile]]:
    """Return the last commit of the repository, and its files with sizes and hashes.

    It is one request, so that all of it belongs to one commit.
    """
    api = HfApi(library_name="qwqlab", library_version=__version__)
    ask = api.model_info if repository.kind == "model" else api.dataset_info
    name = repository.repo_id
    try:
        with explaining(repository):
            info = ask(name, revision="main", files_metadata=True, timeout=TIMEOUT)
    except (ValueError, KeyError, TypeError) as error:
        raise FetchError(
            f"The answer for {name} is no listing ({first_lines(error)}): check HF_ENDPOINT, and "
            "whether this network wants you to log in first."
        ) from error
    folder = "" if repository.kind == "model" else f"{repository.kind}s/"
    commit, files = str(info.sha), []
    for sibling in info.siblings or ():
        path, lfs = sibling.rfilename, sibling.lfs
        size, found = (lfs.size, lfs.sha256) if lfs else (sibling.size, sibling.blob_id)
        # A listing must not be able to write outside the snapshot.
        if not str(found).isalnum() or any(part in ("", ".", "..") for part in path.split("/")):
            raise FetchError(f"The hub lists an unsafe file name, {path!r}: nothing was fetched.")
        url = f"{api.endpoint}/{folder}{name}/resolve/{commit}/{quote(path)}"
        blob = find_folder(repository) / "blobs" / str(found)
        files.append(RemoteFile(path, int(size or 0), str(found), url, blob))
    return commit, files


@contextmanager
def explaining(repository: Repository, file: str = "") -> Iterator[None]:
    """Turn the hub's refusal, or a network that fails, into one sentence: FetchError."""
    try:
        yield
    except HfHubHTTPError as error:
        raise FetchError(_explain(error.response, repository, file)) from error
    except (httpx.RequestError, httpx.InvalidURL) as error:
        reason = first_lines(error)
        raise FetchError(
            f"No complete answer from {constants.ENDPOINT} ({reason}): check the network and "
            "HF_ENDPOINT, and run the same command to go on; what has arrived is kept."
        ) from error


def _explain(response: httpx.Response, repository: Repository, file: str) -> str:
    status, code = response.status_code, response.headers.get("x-error-code", "")
    repo = repository.repo_id
    what = f"{file} of {repo}" if file else f"repository {repo}"
    if code == "GatedRepo":
        remedy = "" if get_token() else ", then set HF_TOKEN to your token"
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


def link_snapshot(repository: Repository, commit: str, files: Sequence[RemoteFile]) -> Path:
    """Return the folder of a commit, with a relative link to the blob of each of these files."""
    folder = find_folder(repository) / "snapshots" / commit
    for file in files:
        pointer = folder / file.path
        if not pointer.exists():
            pointer.parent.mkdir(parents=True, exist_ok=True)
            pointer.symlink_to(os.path.relpath(file.blob, pointer.parent))
    ref = find_folder(repository) / "refs" / "main"
    ref.parent.mkdir(parents=True, exist_ok=True)
    ref.write_text(commit, encoding="utf-8")
    return folder


def find_snapshot(repository: Repository) -> Path | None:
    """Return the folder in the cache of the last commit that was fetched, or None."""
    try:
        folder = snapshot_download(
            repository.repo_id,
            repo_type=repository.kind,
            cache_dir=find_cache(),
            local_files_only=True,
        )
    except LocalEntryNotFoundError:
        return None
    return Path(folder)
