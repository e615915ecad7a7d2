"""Bring one file's bytes here, going on where an earlier try stopped, in a new process too.

The bytes go into a part file that only ever grows by what the server sent for its end. Its name
carries the hash of the whole, so what it holds is meant for that content; the hash decides.
"""

from __future__ import annotations

import errno
import shutil
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
from filelock import FileLock, Timeout

from ..errors import FetchError
from .entries import show_size
from .web import Subject, TryAgainError, Web

Progress = Callable[[int, int, float], "bool | None"]
"""Called with bytes done, bytes in all and bytes per second; returning False asks to stop."""

GOOD_PROGRESS = 64 << 10


class FetchStoppedError(FetchError):
    """Stopped on request; what had arrived is kept."""


class Transfer:
    """Counts the bytes of a fetch, tells `progress`, and ends it when `stop` is set.

    A fetch of several files shares one transfer. The rate is that of the last few seconds.
    """

    def __init__(
        self,
        total: int,
        progress: Progress | None = None,
        stop: threading.Event | None = None,
        interval: float = 0.2,
        window: float = 5.0,
    ) -> None:
        self.total = total
        self.done = 0
        self.moved = 0
        self._progress = progress
        self._stop = stop or threading.Event()
        self._interval = interval
        self._window = window
        self._told = -interval
        self._samples: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])

    def advance(self, n_bytes: int) -> None:
        """Count bytes that came over the wire. FetchStoppedError if a stop was asked for."""
        self.done += n_bytes
        self.moved += n_bytes
        now = time.monotonic()
        if now - self._told >= self._interval or self.done >= self.total:
            self.tell(now)
        self.check()

    def skip(self, n_bytes: int) -> None:
        """Count bytes that were here already, or, negative, bytes that must come again."""
        self.done += n_bytes

    def tell(self, now: float) -> None:
        """Tell `progress` where things stand."""
        self._told = now
        self._samples.append((now, self.moved))
        while len(self._samples) > 2 and now - self._samples[0][0] > self._window:
            self._samples.popleft()
        start, moved = self._samples[0]
        rate = (self.moved - moved) / max(now - start, 1e-3)
        if self._progress and self._progress(self.done, self.total, rate) is False:
            self._stop.set()

    def check(self) -> None:
        """FetchStoppedError if a stop was asked for."""
        if self._stop.is_set():
            raise FetchStoppedError(
                f"Stopped with {self.done} of {self.total} bytes here; "
                "run the same command to go on from there."
            )

    @contextmanager
    def cutting(self, response: httpx.Response) -> Iterator[None]:
        """Cut the connection as soon as a stop is asked for, even if no byte arrives."""
        stream = response.extensions.get("network_stream")
        connection = stream.get_extra_info("socket") if stream else None
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.1):
                if self._stop.is_set() and connection is not None:
                    with suppress(OSError):
                        connection.shutdown(socket.SHUT_RDWR)
                    return

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def pause(self, seconds: float) -> None:
        """Wait, but no longer than until a stop is asked for."""
        self._stop.wait(seconds)
        self.check()


@contextmanager
def locked(lock: Path, transfer: Transfer) -> Iterator[None]:
    """Hold a lock file against other processes; waiting for it can be stopped."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(FileLock(lock, timeout=0.5, mode=0o664))
                break
            except Timeout:
                transfer.check()
        yield


def check_disk(folder: Path, n_bytes: int, subject: str, remedy: str) -> None:
    """FetchError if `folder`, or the nearest folder above it, has no room for n_bytes more."""
    place = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(place).free
    if n_bytes > free:
        raise FetchError(
            f"{subject} needs {show_size(n_bytes)} more and {place} has {show_size(free)} free: "
            f"make room, or {remedy}."
        )


def download(
    web: Web, url: str, part: Path, size: int, subject: Subject, transfer: Transfer
) -> None:
    """Fill `part` up to `size` bytes from `url`; bytes that it holds are not asked for again.

    A server that ignores the request for the rest starts the file afresh. A dropped connection is
    taken up again where it dropped, as often as the web's patience says. The content is not checked
    here. FetchError or FetchStoppedError leave the part as it is.
    """
    before = 0
    transfer.skip(count_bytes(part))

    def progressed() -> bool:
        return count_bytes(part) - before >= GOOD_PROGRESS

    def attempt() -> None:
        nonlocal before
        if count_bytes(part) > size:
            transfer.skip(-count_bytes(part))
            part.unlink()
        before = count_bytes(part)
        if before < size or not part.exists():
            _append(web, url, part, size, subject, transfer)

    web.persist(attempt, subject, progressed)


def _append(
    web: Web, url: str, part: Path, size: int, subject: Subject, transfer: Transfer
) -> None:
    have = count_bytes(part)
    wanted = {"range": f"bytes={have}-"} if have else {}
    with web.open(url, subject, wanted) as response:
        resumed = response.status_code == httpx.codes.PARTIAL_CONTENT
        if resumed and not _continues(response, have, size):
            raise FetchError(
                f"The server answered {response.headers.get('content-range')!r} to a request for "
                f"byte {have} onwards of {subject}, which has {size} bytes."
            )
        if not resumed:
            transfer.skip(-have)
            have = 0
        stated = response.headers.get("content-length")
        if stated is not None and stated.isdigit() and int(stated) != size - have:
            raise FetchError(
                f"The server sends {stated} bytes for {subject}, where its listing says "
                f"{size - have}; try again later."
            )
        try:
            with part.open("ab" if resumed else "wb") as file, transfer.cutting(response):
                for chunk in response.iter_raw():
                    if have + len(chunk) > size:
                        raise FetchError(
                            f"The server sends more than the {size} bytes of {subject}."
                        )
                    file.write(chunk)
                    # What has arrived must survive a kill, so nothing waits in a buffer.
                    file.flush()
                    have += len(chunk)
                    transfer.advance(len(chunk))
        except FetchError:
            raise
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise FetchError(
                    f"The disk of {part.parent} is full at byte {count_bytes(part)} of {subject}: "
                    "make room and run the same command to go on."
                ) from error
            raise FetchError(f"{part} cannot be written: {error.strerror or error}.") from error
    if have < size:
        raise TryAgainError(f"the connection ended at byte {have} of {size}")


def _continues(response: httpx.Response, have: int, size: int) -> bool:
    return bool(response.headers.get("content-range") == f"bytes {have}-{size - 1}/{size}")


def count_bytes(path: Path) -> int:
    """The size of a file, 0 where there is none yet."""
    return path.stat().st_size if path.exists() else 0
