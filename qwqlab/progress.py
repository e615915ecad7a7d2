"""What the lab tells in a terminal or a log: lines, and progress as a bar that redraws itself."""

from __future__ import annotations

import codecs
import io
import sys
import time
from typing import TextIO


def accept_any_text() -> None:
    """Let stdout and stderr take any text, whatever the terminal's encoding.

    A character that the encoding does not have is printed as ?, and a byte of a file's name as it
    was.
    """
    codecs.register_error("qwqlab", _stand_in)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="qwqlab")


def _stand_in(error: UnicodeError) -> tuple[bytes, int]:
    assert isinstance(error, UnicodeEncodeError)
    codes = [ord(letter) for letter in error.object[error.start : error.end]]
    kept = (code - 0xDC00 if 0xDC80 <= code < 0xDD00 else ord("?") for code in codes)
    return bytes(kept), error.end


def say(line: str) -> None:
    """Print one line on stderr, so that stdout stays free for results."""
    print(line, file=sys.stderr, flush=True)


class PrintedProgress:
    """A progress callback that redraws a bar, at most five times a second.

    Where stderr is no terminal it prints a line for each twentieth of the file, at most one a
    second.
    """

    def __init__(self, name: str, out: TextIO | None = None) -> None:
        self._name = name
        self._out = out or sys.stderr
        self._bar = self._out.isatty()
        self._told_at = float("-inf")
        self._told_done = -1.0

    def __call__(self, done: int, total: int, bytes_per_second: float) -> None:
        now = time.monotonic()
        share = done / total if total else 1.0
        ended = done >= total
        if self._bar:
            if ended or now - self._told_at >= 0.2:
                self._told_at = now
                line = progress_line(self._name, done, total, bytes_per_second)
                print(f"\r\x1b[K{line}", end="\n" if ended else "", file=self._out, flush=True)
        elif ended or (now - self._told_at >= 1.0 and share - self._told_done >= 0.05):
            self._told_at, self._told_done = now, share
            print(
                progress_line(self._name, done, total, bytes_per_second), file=self._out, flush=True
            )


def progress_line(name: str, done: int, total: int, bytes_per_second: float) -> str:
    """Return a line on how far a transfer is.

    >>> progress_line("model.gguf", 5_000_000_000, 20_000_000_000, 50_000_000)
    'model.gguf: 25 %, 5.00 of 20.00 GB, 50.0 MB/s, 5 min left'
    """
    unit, name_of_unit = (1e9, "GB") if total >= 1e9 else (1e6, "MB")
    share = done / total if total else 1.0
    text = f"{name}: {share:.0%}".replace("%", " %")
    text += f", {done / unit:.2f} of {total / unit:.2f} {name_of_unit}"
    if 0 < done < total and bytes_per_second > 0:
        left = (total - done) / bytes_per_second
        clock = f"{left:.0f} s" if left < 100 else f"{left / 60:.0f} min"
        text += f", {bytes_per_second / 1e6:.1f} MB/s, {clock} left"
    return text
