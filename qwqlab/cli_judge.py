"""The commands of `qwqlab` that look at one file and say what they found: grade, inspect, ...

They give 0 for a good verdict, 1 for a bad one, and 2, with a sentence, for what they can't judge.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

REFUSED = 2


def add_commands(add: Callable[..., Any]) -> None:
    """Add them to the parser of `cli`: `add` is its function of a name, a function and a text."""
