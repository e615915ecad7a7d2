"""How a program of somebody else's ended, in words."""

from __future__ import annotations

import re


def explain_exit(returncode: int) -> str:
    """An exit code in words.

    >>> explain_exit(1), explain_exit(-9)
    ('failed with exit code 1', 'was killed by signal 9, perhaps for want of memory')
    """
    if returncode == -9:
        return "was killed by signal 9, perhaps for want of memory"
    if returncode < 0:
        return f"was killed by signal {-returncode}"
    return f"failed with exit code {returncode}"


def last_lines(text: str, count: int = 3) -> str:
    """The last lines that are not empty, without the logger's clock and level."""
    lines = [re.sub(r"^[\d.]+ [A-Z] ", "", line.strip()) for line in text.splitlines()]
    return " / ".join([line for line in lines if line][-count:])
