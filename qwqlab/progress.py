"""What the lab prints: text in any locale, and no text that acts on the terminal.

Names, templates, tokens and what a program printed are a stranger's. On a terminal such text could
hide a line, colour a verdict or write into the clipboard, so every command shows it escaped. A
result that scripts compare is the exception: into a file or a pipe it goes as it is.
"""

from __future__ import annotations

import io
import sys
import unicodedata
from typing import Any, TextIO, cast

# Control and format characters, which hold escape sequences, marks of direction and most that have
# no width; half surrogate pairs; and the two that end a line without being a newline.
_ESCAPED = ("Cc", "Cf", "Cs", "Zl", "Zp")
# Letters and marks that show nothing. The two that choose how an emoji looks stay as they are.
_BLANK = {*range(0xFE00, 0xFE0E), *range(0xE0000, 0xE1000), *range(0x180B, 0x1810)}
_BLANK |= {0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0}


def escape_controls(text: str) -> str:
    r"""Return text with what is not seen, but for newlines and tabs, as Python would write it.

    >>> print(escape_controls("two\nlines, \x1b[31mred\x1b[0m, \u202ekcab"))
    two
    lines, \x1b[31mred\x1b[0m, \u202ekcab
    """
    return "".join(map(_escape, text))


def _escape(letter: str) -> str:
    if letter in "\n\t" or " " <= letter <= "~":
        return letter
    hidden = unicodedata.category(letter) in _ESCAPED or ord(letter) in _BLANK
    return ascii(letter)[1:-1] if hidden else letter


class _Guarded:
    """A stream of text whose every write goes through `escape_controls`."""

    def __init__(self, stream: TextIO, bars: bool) -> None:
        self.stream, self._bars = stream, bars

    def write(self, text: str) -> int:
        # A progress bar begins at the start of its line.
        begin = "\r" if self._bars and text.startswith("\r") else ""
        self.stream.write(begin + escape_controls(text[len(begin) :]))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def guard_output() -> None:
    """Let stdout and stderr take any text, and escape what acts on a terminal.

    A character that the locale does not have is printed as ?.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
        if not isinstance(stream, _Guarded):
            setattr(sys, name, cast("TextIO", _Guarded(stream, bars=name == "stderr")))


def give(text: object, end: str = "\n") -> None:
    """Print a result: as it is into a file or a pipe, escaped on a terminal."""
    out = sys.stdout
    if isinstance(out, _Guarded) and not out.stream.isatty():
        out = out.stream
    print(text, end=end, file=out, flush=True)


def say(line: str) -> None:
    """Print one line on stderr, so that stdout stays free for results."""
    print(escape_controls(line), file=sys.stderr, flush=True)
