"""A prompt as text: read from a file, and written as llama.cpp's command line wants it."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import SettingError

PROMPT_BYTES = 16_000_000  # more than the longest context of today's models holds


def read_prompt(path: str | Path) -> str:
    """A prompt file, byte for byte; bytes that are not UTF-8 are kept as lone surrogates."""
    try:
        with Path(path).open("rb") as file:
            raw = file.read(PROMPT_BYTES + 1)
    except OSError as error:
        raise SettingError(f"the prompt file {path} cannot be read: {error.strerror}") from None
    if len(raw) > PROMPT_BYTES:
        raise SettingError(
            f"the prompt file {path} is longer than {PROMPT_BYTES // 10**6} MB; give a shorter one"
        )
    return raw.decode("utf-8", "surrogateescape")


def escape(text: str) -> str:
    r"""Text as llama.cpp's escape processing wants it: backslashes doubled, newlines as \n."""
    if "\0" in text:
        raise SettingError("a prompt on a command line may not hold a NUL character")
    for raw, written in (("\\", "\\\\"), ("\n", "\\n"), ("\t", "\\t"), ("\r", "\\r")):
        text = text.replace(raw, written)
    return text


def unescape(text: str) -> str:
    r"""What llama.cpp makes of \n, \r, \t, \', \", \\ and \xHH in a prompt."""
    plain = {"n": "\n", "r": "\r", "t": "\t", "'": "'", '"': '"', "\\": "\\"}

    def one(match: re.Match[bytes]) -> bytes:
        code = match[1].decode("latin-1")
        if code[0] == "x":
            return bytes([int(code[1:], 16)])
        return plain[code].encode()

    raw = text.encode("utf-8", "surrogateescape")
    raw = re.sub(rb"\\(x[0-9a-fA-F]{2}|[nrt'\"\\])", one, raw)
    return raw.decode("utf-8", "surrogateescape")
