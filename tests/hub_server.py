"""A model hub on the loopback interface, with a second server as its content network.

It speaks what huggingface_hub and qwqlab.models ask for: the listing with hashes, HEAD and GET of
files, redirects of large files to another host, ranges. It can misbehave on request, and it keeps a
log of every request with its headers.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
LARGE = 1024


@dataclass(frozen=True)
class Seen:
    """One request: which server it reached, and with what."""

    server: str
    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Faults:
    """What goes wrong. Lists are used up one element a request.

    drop_after:   bytes of a body to send before the connection is closed.
    stall_after:  bytes of a body to send before nothing more comes, for as long as the hub lives.
    answers:      (status, headers) to give instead of a body of the content network.
    listing:      the same for the listing.
    """

    drop_after: list[int] = field(default_factory=list)
    stall_after: list[int] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    listing: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    flip_byte: int | None = None
    ignore_range: bool = False
    gated: bool = False


class Hub:
    """The hub's content and behaviour, shared by its two servers."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.faults = Faults()
        self.log: list[Seen] = []
        self.token: str | None = None
        self.closing = threading.Event()
        self.endpoint = ""
        self.network = ""
        self.rename: dict[str, str] = {}

    def add(self, repo_id: str, files: dict[str, bytes]) -> None:
        """Put files into a repository, at the one commit that there is."""
        self.repos[repo_id] = files

    def ranges(self) -> list[str | None]:
        """The Range header of each GET that reached the content network, in order."""
        return [
            seen.headers.get("range")
            for seen in self.log
            if seen.server == "network" and seen.method == "GET"
        ]

    def describe(self, path: str, data: bytes) -> dict[str, Any]:
        """A file as the listing with blobs states it."""
        entry: dict[str, Any] = {"rfilename": self.rename.get(path, path), "size": len(data)}
        entry["blobId"] = git_sha1(data)
        if len(data) >= LARGE:
            sha256 = hashlib.sha256(data).hexdigest()
            entry["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 134}
        return entry

    def find_blob(self, sha256: str) -> bytes | None:
        for files in self.repos.values():
            for data in files.values():
                if hashlib.sha256(data).hexdigest() == sha256:
                    return data
        return None


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """Two servers on 127.0.0.1 until the block ends."""
    hub = Hub()
    servers = [_server(hub, "hub"), _server(hub, "network")]
    # Another name for the same machine counts as another host.
    hub.endpoint = f"http://127.0.0.1:{servers[0].server_address[1]}"
    hub.network = f"http://localhost:{servers[1].server_address[1]}"
    threads = [threading.Thread(target=s.serve_forever, args=(0.02,)) for s in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        hub.closing.set()
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()


def _server(hub: Hub, name: str) -> ThreadingHTTPServer:
    handler = type("Handler", (_Handler,), {"hub": hub, "name": name})
    return _Server(("127.0.0.1", 0), handler)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is part of the game."""


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    name: str
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """The log is kept in the hub instead."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        headers = {key.lower(): value for key, value in self.headers.items()}
        self.hub.log.append(Seen(self.name, self.command, self.path, headers))
        path = unquote(urlsplit(self.path).path)
        if self.name == "network":
            self._send_blob(path.rsplit("/", 1)[-1])
        elif listing := re.fullmatch(r"/api/(?:models|datasets)/([^/]+/[^/]+)/revision/(.+)", path):
            self._list(listing[1], listing[2])
        elif tree := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+).*", path):
            self._list(tree[1], tree[2], tree=True)
        elif file := re.fullmatch(r"/(?:datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(file[1], file[2], file[3])
        else:
            self._answer(404)

    def _find(self, repo_id: str, revision: str) -> dict[str, bytes] | None:
        sent = self.headers.get("authorization")
        if self.hub.token and sent != f"Bearer {self.hub.token}":
            self._answer(403 if sent else 401, {"X-Error-Code": "GatedRepo"} if sent else {})
            return None
        if repo_id not in self.hub.repos:
            self._answer(404, {"X-Error-Code": "RepoNotFound"})
            return None
        if revision not in ("main", COMMIT):
            self._answer(404, {"X-Error-Code": "RevisionNotFound"})
            return None
        return self.hub.repos[repo_id]

    def _list(self, repo_id: str, revision: str, tree: bool = False) -> None:
        if self.hub.faults.listing:
            self._answer(*self.hub.faults.listing.pop(0))
            return
        files = self._find(repo_id, revision)
        if files is None:
            return
        siblings = [self.hub.describe(path, data) for path, data in files.items()]
        answer: Any = {"id": repo_id, "sha": COMMIT, "siblings": siblings}
        if tree:
            answer = [_as_leaf(entry) for entry in siblings]
        self._answer(200, {"Content-Type": "application/json"}, json.dumps(answer).encode())

    def _resolve(self, repo_id: str, revision: str, file: str) -> None:
        files = self._find(repo_id, revision)
        if files is None:
            return
        if self.hub.faults.gated:
            self._answer(403, {"X-Error-Code": "GatedRepo"})
            return
        data = files.get(file)
        if data is None:
            self._answer(404, {"X-Error-Code": "EntryNotFound"})
            return
        headers = {"X-Repo-Commit": COMMIT}
        if len(data) < LARGE:
            self._send_body(data, {**headers, "ETag": f'"{git_sha1(data)}"'})
            return
        sha256 = hashlib.sha256(data).hexdigest()
        headers |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(data))}
        self._answer(302, {**headers, "Location": f"{self.hub.network}/blobs/{sha256}"})

    def _send_blob(self, sha256: str) -> None:
        data = self.hub.find_blob(sha256)
        if data is None:
            self._answer(404)
        elif self.hub.faults.answers:
            self._answer(*self.hub.faults.answers.pop(0))
        else:
            # As on the real network, this ETag is not the file's sha256.
            self._send_body(data, {"ETag": '"multipart-7"', "Accept-Ranges": "bytes"})

    def _send_body(self, data: bytes, headers: dict[str, str]) -> None:
        faults = self.hub.faults
        if faults.flip_byte is not None:
            at = faults.flip_byte
            data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", ""))
        status, start = 200, 0
        if wanted and not faults.ignore_range:
            status, start = 206, int(wanted[1])
            headers = {**headers, "Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
            if start >= len(data):
                self._answer(416, {"Content-Range": f"bytes */{len(data)}"})
                return
        body = data[start:]
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if faults.drop_after:
            self._write(body[: faults.drop_after.pop(0)])
            self.close_connection = True
        elif faults.stall_after:
            self._write(body[: faults.stall_after.pop(0)])
            self.hub.closing.wait()
            self.close_connection = True
        else:
            self._write(body)

    def _write(self, body: bytes) -> None:
        try:
            self.wfile.write(body)
            self.wfile.flush()
        except OSError:
            self.close_connection = True

    def _answer(
        self, status: int, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self._write(body)


def _as_leaf(entry: dict[str, Any]) -> dict[str, Any]:
    leaf = {"type": "file", "path": entry["rfilename"], "size": entry["size"]}
    leaf["oid"] = entry["blobId"]
    if "lfs" in entry:
        leaf["lfs"] = {**entry["lfs"], "oid": entry["lfs"]["sha256"]}
    return leaf
