"""What a program imports, and whether it is there: modules, and the names it takes from pygame."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator


def find_missing(source: str) -> list[str]:
    """A sentence for each module that isn't installed and each name that pygame doesn't have.

    Nothing of the program runs. source must parse. Imports under `try` may fail, so they don't
    count.

    >>> find_missing("import pygame as pg\\nimport nowhere\\npg.draw.star(1, 2)\\n")
    ['line 2: there is no module nowhere', 'line 3: pygame.draw has no star']
    """
    tree = ast.parse(source)
    guarded = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.Try)
        for part in node.body
        for child in ast.walk(part)
    }
    problems = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)) and node not in guarded:
            for module in _modules(node):
                if not _is_installed(module):
                    problems.append((node.lineno, f"there is no module {module}"))
    problems += _find_missing_names(tree)
    return [f"line {line}: {what}" for line, what in sorted(set(problems))]


def list_modules(source: str) -> list[str]:
    """The modules that a program imports, by their first part, in the order of the source."""
    nodes = [n for n in ast.walk(ast.parse(source)) if isinstance(n, (ast.Import, ast.ImportFrom))]
    nodes.sort(key=lambda node: node.lineno)
    return list(dict.fromkeys(module for node in nodes for module in _modules(node)))


def _modules(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name.partition(".")[0] for alias in node.names)
    elif node.level == 0 and node.module:
        yield node.module.partition(".")[0]


def _is_installed(module: str) -> bool:
    if module in sys.stdlib_module_names:
        return True
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _find_missing_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """What is asked of pygame and isn't in it: `pygame.draw.star`, `from pygame import sprites`."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    importlib.import_module("pygame")
    known_as: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "pygame":
                    whole = alias.name if alias.asname else "pygame"
                    known_as[alias.asname or "pygame"] = whole
                    if not _exists(alias.name):
                        yield node.lineno, f"there is no module {alias.name}"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pygame":
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if alias.name != "*" and not _exists(name):
                    yield node.lineno, f"{node.module} has no {alias.name}"
                elif _is_module(name):
                    known_as[alias.asname or alias.name] = name
    assigned = {
        n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            owner = _dotted(node.value)
            first, _, rest = owner.partition(".")
            if first in known_as and first not in assigned:
                owner = ".".join(part for part in (known_as[first], rest) if part)
                if _is_module(owner) and not _exists(f"{owner}.{node.attr}"):
                    yield node.lineno, f"{owner} has no {node.attr}"


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return "?"


def _find(name: str) -> object:
    """What a dotted name of pygame stands for; None where there is nothing."""
    found: object = sys.modules["pygame"]
    path = "pygame"
    for part in name.split(".")[1:]:
        path = f"{path}.{part}"
        if not hasattr(found, part):
            try:
                importlib.import_module(path)
            except (ImportError, ValueError):
                return None
        found = getattr(found, part, None)
    return found


def _exists(name: str) -> bool:
    return _find(name) is not None


def _is_module(name: str) -> bool:
    return type(_find(name)).__name__ == "module"
