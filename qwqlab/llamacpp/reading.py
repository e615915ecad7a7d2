"""Numbers as llama.cpp's programs read them out of a text: from its start, as far as they go.

A flag's value goes through C++'s std::stoi or std::stof. These skip blanks, stop at the first
letter that is no part of a number, and refuse what 32 bits do not hold.
"""

from __future__ import annotations

import math
import re
import struct

_INT = re.compile(r"\s*([+-]?\d{1,4000})", re.A)  # Python reads no more digits
_FLOAT = re.compile(
    r"""\s*([+-]?)(?:
    (?P<hex>0x(?:[\da-f]+\.?[\da-f]*|\.[\da-f]+)(?:p[+-]?\d+)?)
    |(?P<decimal>(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)
    |(?P<word>inf(?:inity)?|nan(?:\(\w*\))?))""",
    re.A | re.I | re.X,
)
_SMALLEST = 2.0**-126  # below it a float has fewer digits, and C calls that out of range


def read_int(text: str) -> tuple[int, str]:
    """Return the whole number at the start of a text, and what follows it.

    Raise ValueError if there is none; 32 bits may not hold it.

    >>> read_int(" 40.7"), read_int("-1")
    ((40, '.7'), (-1, ''))
    """
    match = _INT.match(text)
    if match is None:
        raise ValueError
    return int(match[1]), text[match.end() :]


def read_float(text: str) -> tuple[float, str]:
    """Return the number at the start of a text, and what follows it.

    Raise ValueError if there is none, and OverflowError for one that a float cannot hold.

    >>> read_float("0x1p-2"), read_float("0,8"), read_float("-Infinity")
    ((0.25, ''), (0.0, ',8'), (-inf, ''))
    """
    match = _FLOAT.match(text)
    if match is None:
        raise ValueError
    rest = text[match.end() :]
    if match["word"]:
        return float(match[1] + match["word"][:3]), rest
    number = match["hex"] or match["decimal"]
    value = float.fromhex(number) if match["hex"] else float(number)
    (kept,) = struct.unpack("<f", struct.pack("<f", value))  # an OverflowError if it is too large
    digits = re.split("p" if match["hex"] else "e", number.lower().removeprefix("0x"))[0]
    vanished = value == 0 and digits.strip("0.") != ""
    if value == math.inf or vanished or (value < _SMALLEST and kept != value):
        raise OverflowError
    return float(match[1] + "1") * value, rest
