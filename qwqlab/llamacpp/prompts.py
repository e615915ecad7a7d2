"""A prompt as llama.cpp's programs take it: read from a file, or escaped for `-p`."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import SettingError
from ..files import read_bytes

PROMPT_BYTES = 16_000_000  # more than the longest context of today's models holds


def read_prompt(path: str | Path) -> str:
    """Read a prompt file, byte for byte; bytes that are not UTF-8 become lone surrogates.

    Raise SettingError for a file that can't be read or is longer than PROMPT_BYTES.
    """
    try:
        raw = read_bytes(Path(path), PROMPT_BYTES)
    except OSError as error:
        raise SettingError(f"the prompt file {path} cannot be read: {error.strerror}") from None
    return raw.decode("utf-8", "surrogateescape")


def escape(text: str) -> str:
    r"""Escape a text for llama.cpp's command line: backslashes doubled, newlines as \n.

    >>> print(escape("a\tb\n"))
    a\tb\n
    """
    if "\0" in text:
        raise SettingError("a prompt on a command line may not hold a NUL character")
    for raw, written in (("\\", "\\\\"), ("\n", "\\n"), ("\t", "\\t"), ("\r", "\\r")):
        text = text.replace(raw, written)
    return text


def unescape(text: str) -> str:
    r"""Undo `escape` as llama.cpp does: \n, \r, \t, \', \", \\ and \xHH.

    The first H may be a blank or a sign, which C's strtol takes too.
    """
    plain = {"n": "\n", "r": "\r", "t": "\t", "'": "'", '"': '"', "\\": "\\"}

    def one(match: re.Match[bytes]) -> bytes:
        code = match[1].decode("latin-1")
        if code[0] == "x":
            return bytes([int(code[1:], 16) % 256])
        return plain[code].encode()

    raw = text.encode("utf-8", "surrogateescape")
    raw = re.sub(rb"\\(x[0-9a-fA-F\s+-][0-9a-fA-F]|[nrt'\"\\])", one, raw)
    return raw.decode("utf-8", "surrogateescape")
