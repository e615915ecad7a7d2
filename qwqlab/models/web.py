"""Ask a server over HTTP, patiently: what is worth another try, how long to wait, what to say."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import httpx

from ..errors import FetchError

WORTH_A_RETRY = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Patience:
    """How often and how long to try again.

    tries:     failures in a row, none of them with progress, before giving up.
    wait:      seconds before the second try; doubled for each one after it, up to longest_wait.
    longest_retry_after: a server that asks for more seconds than this is not waited for.
    timeout:   seconds without a byte before a connection counts as dropped.
    """

    tries: int = 6
    wait: float = 1.0
    longest_wait: float = 60.0
    longest_retry_after: float = 300.0
    timeout: float = 10.0

    def delay(self, failures: int) -> float:
        """Seconds to wait after that many failures in a row.

        >>> [Patience().delay(n) for n in (1, 2, 3, 20)]
        [1.0, 2.0, 4.0, 60.0]
        """
        return float(min(self.wait * 2 ** (failures - 1), self.longest_wait))


class TryAgainError(Exception):
    """A failure that may pass; `after` is the wait in seconds that the server asked for, if any."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


@dataclass(frozen=True)
class Subject:
    """What is asked for, so that a refusal can name it; token says whether one was sent."""

    repo_id: str
    revision: str
    token: bool
    file: str = ""

    def __str__(self) -> str:
        place = f"{self.repo_id} at revision {self.revision}"
        return f"{self.file} of {place}" if self.file else place


class Web:
    """A connection pool that follows redirects; httpx drops the token when the host changes."""

    def __init__(
        self,
        headers: dict[str, str],
        patience: Patience,
        pause: Callable[[float], None] = time.sleep,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.patience = patience
        self._pause = pause
        self._say = say
        self._client = httpx.Client(
            headers={**headers, "accept-encoding": "identity"},
            follow_redirects=True,
            timeout=patience.timeout,
        )

    def __enter__(self) -> Web:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    @contextmanager
    def open(
        self, url: str, subject: Subject, headers: dict[str, str] | None = None
    ) -> Iterator[httpx.Response]:
        """One GET, its body unread. TryAgainError or FetchError if the answer is not 2xx."""
        try:
            with self._client.stream("GET", url, headers=headers) as response:
                if not response.is_success:
                    _refuse(response, subject)
                yield response
        except httpx.TooManyRedirects as error:
            raise FetchError(f"The server keeps redirecting the request for {subject}.") from error
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise FetchError(
                f"{url} is not an address to ask; check HF_ENDPOINT, which starts with https://."
            ) from error
        except httpx.TransportError as error:
            host = urlsplit(url).netloc
            reason = str(error) or type(error).__name__
            raise TryAgainError(f"no complete answer from {host} ({reason})") from error

    def read_json(self, url: str, subject: Subject, limit: int = 64 << 20) -> Any:
        """The JSON at an address, tried again while patience lasts."""

        def attempt() -> Any:
            body = bytearray()
            with self.open(url, subject) as response:
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > limit:
                        raise FetchError(f"The listing of {subject} is longer than {limit} bytes.")
                try:
                    return httpx.Response(200, content=bytes(body)).json()
                except ValueError as error:
                    raise FetchError(
                        f"The answer for {subject} is not JSON; check HF_ENDPOINT."
                    ) from error

        return self.persist(attempt, subject)

    def persist(
        self,
        attempt: Callable[[], Any],
        subject: Subject,
        progressed: Callable[[], bool] = lambda: False,
    ) -> Any:
        """Run `attempt` until it ends, TryAgainError meaning another try.

        The count of failures starts again whenever `progressed()` says that the last try got
        somewhere, so that a long transfer over a poor line is not given up.
        """
        failures = 0
        while True:
            try:
                return attempt()
            except TryAgainError as error:
                failures = 1 if progressed() else failures + 1
                if failures >= self.patience.tries:
                    raise FetchError(
                        f"Gave up on {subject} after {failures} tries: {error}. "
                        "What has arrived is kept; run the same command to go on."
                    ) from error
                delay = self.patience.delay(failures) if error.after is None else error.after
                if delay > self.patience.longest_retry_after:
                    raise FetchError(
                        f"Stopped at {subject}: {error}, and asks to wait {delay:.0f} s. "
                        "What has arrived is kept; run the same command later."
                    ) from error
                self._say(f"{error}: trying again in {delay:.0f} s")
                self._pause(delay)


def read_retry_after(value: str | None, now: str | None = None) -> float | None:
    """Seconds of a Retry-After header, which holds a number or a date; None if there is none.

    now: the server's Date, from which its date counts, since the clock here may be wrong.

    >>> read_retry_after("2"), read_retry_after(None), read_retry_after("soon")
    (2.0, None, None)
    """
    if not value:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    try:
        since = email.utils.parsedate_to_datetime(now or "").timestamp()
    except ValueError:
        since = time.time()
    return max(0.0, moment.timestamp() - since)


def _refuse(response: httpx.Response, subject: Subject) -> None:
    status = response.status_code
    code = response.headers.get("x-error-code", "")
    if status in WORTH_A_RETRY:
        reason = "the server limits the rate" if status == 429 else "the server is in trouble"
        after = read_retry_after(*map(response.headers.get, ("retry-after", "date")))
        raise TryAgainError(f"{reason} (HTTP {status})", after)
    if status in (401, 403):
        raise FetchError(_explain_refusal(status, code, subject))
    if status == 404:
        missing = {
            "RepoNotFound": f"There is no repository {subject.repo_id}, or it is private",
            "RevisionNotFound": f"{subject.repo_id} has no revision {subject.revision}",
        }.get(code, f"There is no {subject}")
        raise FetchError(f"{missing} (HTTP 404); check the name.")
    raise FetchError(f"The server answered HTTP {status} for {subject}.")


def _explain_refusal(status: int, code: str, subject: Subject) -> str:
    repo = subject.repo_id
    if code == "GatedRepo":
        accept = f"{repo} is gated (HTTP {status}): accept its licence on its page"
        return f"{accept}." if subject.token else f"{accept}, then set HF_TOKEN to your token."
    if subject.token:
        return (
            f"The token in use may not read {repo} (HTTP {status}): check HF_TOKEN, "
            "and whether the model's licence must be accepted on its page."
        )
    return (
        f"{repo} asks for a token (HTTP {status}): set HF_TOKEN, and accept the model's licence "
        "on its page if it has one; a name that does not exist is answered like this too."
    )
