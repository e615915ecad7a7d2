"""Move through a file that nobody vouches for, one bounded step at a time.

Every length is compared with what is left of the file before a byte is allocated for it.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO, NoReturn

from ..errors import ModelFileError

MAX_STRING = 64 << 20
REFILL = 1 << 18

U32 = struct.Struct("<I")
I32 = struct.Struct("<i")
U64 = struct.Struct("<Q")
I64 = struct.Struct("<q")


def show(text: str, limit: int = 80) -> str:
    """Text from a file as it may stand in a message: escaped, and at most `limit` characters.

    >>> show("red \\x1b[31m")
    'red \\\\x1b[31m'
    """
    escaped = ascii(text)[1:-1]
    return escaped if len(escaped) <= limit else f"{escaped[: limit - 3]}..."


class Cursor:
    """A place in a file that only moves forward, and never past the end."""

    def __init__(self, file: BinaryIO, path: Path, size: int) -> None:
        self._file = file
        self._path = path
        self.size = size
        self._buffer = b""
        self._at = 0
        self._next = 0
        self.kept = 0
        self.where = "the header"

    def fail(self, problem: str, remedy: str = "fetch it again or take another file") -> NoReturn:
        """Raise ModelFileError about the file."""
        raise ModelFileError(f"{self._path} {problem}; {remedy}.")

    @property
    def position(self) -> int:
        return self._next - len(self._buffer) + self._at

    @property
    def left(self) -> int:
        return self.size - self.position

    def take(self, n: int) -> bytes:
        """The next n bytes. ModelFileError if the file ends before."""
        if n > self.left:
            self.fail(
                f"is cut short: {self.where} needs {n} bytes at byte {self.position} but the file "
                f"has {self.size} bytes",
                "fetch it again",
            )
        if self._at + n > len(self._buffer):
            rest = self._buffer[self._at :]
            more = self._file.read(max(n - len(rest), min(REFILL, self.size - self._next)))
            self._next += len(more)
            self._buffer, self._at = rest + more, 0
            if len(self._buffer) < n:
                self.fail("became shorter while it was read", "wait until it is complete")
        start, self._at = self._at, self._at + n
        return self._buffer[start : self._at]

    def skip(self, n: int) -> None:
        """Pass over n bytes without reading them."""
        if n > self.left or self._at + n <= len(self._buffer):
            self.take(n)
            return
        self._next = self.position + n
        self._buffer, self._at = b"", 0
        self._file.seek(self._next)

    def number(self, kind: struct.Struct) -> int:
        return int(kind.unpack(self.take(kind.size))[0])

    def length(self, limit: int = MAX_STRING) -> int:
        """The length of a string that follows, checked against the limit and the file."""
        n = self.number(U64)
        if n > self.left:
            self.fail(
                f"says that {self.where} is {n} bytes long at byte {self.position} but the file "
                f"has {self.size} bytes"
            )
        if n > limit:
            self.fail(f"says that {self.where} is {n} bytes long, more than the {limit} allowed")
        return n

    def string(self, limit: int = MAX_STRING) -> str:
        return self.take(self.length(limit)).decode("utf-8", errors="replace")

    def skip_strings(self, n: int) -> None:
        """Pass over n strings; a vocabulary has hundreds of thousands, so most in a tight loop."""
        unpack = U64.unpack_from
        while n:
            buffer, at = self._buffer, self._at
            end = len(buffer) - 8
            while n and at <= end:
                after = at + 8 + unpack(buffer, at)[0]
                if after > end + 8:
                    break
                at = after
                n -= 1
            self._at = at
            if n:
                self.skip(self.length())
                n -= 1
