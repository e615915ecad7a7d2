"""What a program imports, and whether that exists; nothing that it names is imported here.

pygame itself is imported, and those of its modules that it documents with a stub: what a program
may ask for by name beside them, such as pygame's examples and tests, runs code.
"""

from __future__ import annotations

import ast
import functools
import importlib
import os
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any


def check_imports(source: str) -> tuple[list[str], list[str]]:
    """Return the modules that a program imports, by their first part, and its faults in sentences.

    A fault is a module that isn't installed, unless it is imported under `try`, or a name that
    pygame doesn't have. source must parse.

    >>> check_imports("import pygame as pg\\nimport nowhere\\npg.draw.star(1, 2)\\n")[1]
    ['line 2: there is no module nowhere', 'line 3: pygame.draw has no star']
    """
    tree = ast.parse(source.encode())
    tried = [part for node in ast.walk(tree) if isinstance(node, ast.Try) for part in node.body]
    guarded = {id(node) for part in tried for node in ast.walk(part)}
    modules: dict[str, None] = {}
    faults = set(_find_missing_names(tree))
    for node in sorted(_list_imports(tree), key=lambda node: node.lineno):
        names = [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            names = [node.module] if node.module and not node.level else []
        for module in (name.partition(".")[0] for name in names):
            modules[module] = None
            known = module in sys.stdlib_module_names or PathFinder.find_spec(module)
            if not known and id(node) not in guarded:
                faults.add((node.lineno, f"there is no module {module}"))
    return list(modules), [f"line {line}: {what}" for line, what in sorted(faults)]


def _list_imports(tree: ast.Module) -> list[ast.Import | ast.ImportFrom]:
    return [n for n in ast.walk(tree) if isinstance(n, (ast.Import, ast.ImportFrom))]


def _find_missing_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and sentence for what pygame does not have, such as `pygame.draw.star`."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    known_as: dict[str, str] = {}  # what a name of the program means
    for node in _list_imports(tree):
        for alias in node.names:
            whole, missing = alias.name, f"there is no module {alias.name}"
            if isinstance(node, ast.ImportFrom):
                whole, missing = f"{node.module}.{alias.name}", f"{node.module} has no {alias.name}"
            if whole.partition(".")[0] != "pygame" or alias.name == "*":
                continue
            if isinstance(node, ast.Import) and not alias.asname:
                known_as["pygame"] = "pygame"
            else:
                known_as[alias.asname or alias.name] = whole
            if _find(whole) is None:
                yield node.lineno, missing
    for each in ast.walk(tree):
        if isinstance(each, ast.Name) and not isinstance(each.ctx, ast.Load):
            known_as.pop(each.id, None)  # it may mean something else, too
    for each in ast.walk(tree):
        if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Load):
            owner = _resolve(each.value, known_as)
            if isinstance(_find(owner), ModuleType) and _find(f"{owner}.{each.attr}") is None:
                yield each.lineno, f"{owner} has no {each.attr}"


def _resolve(node: ast.AST, known_as: dict[str, str]) -> str:
    """Return the dotted name of pygame that an expression means, "?" if it is none."""
    if isinstance(node, ast.Attribute):
        return f"{_resolve(node.value, known_as)}.{node.attr}"
    return known_as.get(node.id, "?") if isinstance(node, ast.Name) else "?"


@functools.lru_cache(maxsize=1024)
def _find(name: str) -> Any:
    """Return what a dotted name of pygame means; None if there is no such thing.

    True stands for a module that exists and is not imported here, and for all that it may hold.
    """
    if not name.startswith("pygame"):
        return None
    try:
        found: Any = importlib.import_module("pygame")
    except ImportError:
        return True
    parent, *parts = name.split(".")
    for part in parts:
        parent = f"{parent}.{part}"
        if not hasattr(found, part) and isinstance(found, ModuleType):
            spec = PathFinder.find_spec(parent, getattr(found, "__path__", []))
            if spec and not _is_documented(part):
                return True
            if spec:
                importlib.import_module(parent)
        found = getattr(found, part, None)
    return found


def _is_documented(module: str) -> bool:
    """Return whether pygame has a stub for one of its modules."""
    home = importlib.import_module("pygame").__file__ or ""
    return Path(home).with_name(f"{module}.pyi").is_file()
