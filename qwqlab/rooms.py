"""The door of a room: each name that others may use, imported when it is first asked for.

A room's `__init__.py` lists its public names under `if TYPE_CHECKING:`, one import a line, where
editors and type checkers read them. `open_room` reads the same lines, so the list is kept once.
Loading a name only on use is PEP 562; a list that tools can read is the idea of scientific
Python's SPEC 1.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def open_room(room: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return a room's `__getattr__` and `__dir__`, given its `__name__` and `__file__`."""
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    homes = {
        alias.name: f"{room}.{node.module}"
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        return getattr(import_module(homes[name]), name)

    return get, lambda: sorted(homes)
