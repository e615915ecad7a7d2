"""What the lab prints beside its results: lines on stderr, in any locale."""

from __future__ import annotations

import io
import sys


def accept_any_text() -> None:
    """Let stdout and stderr take any text: a character that does not fit is printed as ?."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def say(line: str) -> None:
    """Print one line on stderr, so that stdout stays free for results."""
    print(line, file=sys.stderr, flush=True)
