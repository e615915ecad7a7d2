"""Find the program in a model's answer, and what it imports; nothing of it is run here.

The program comes after the thinking, in a fenced block of the answer.
"""

from __future__ import annotations

import ast
import os
import pkgutil
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import PathFinder
from types import ModuleType

from ..experiments import Block, find_blocks
from ..sampling import CLOSE, split_thinking

_PYTHON = re.compile(r"^(python\d?|py|pygame)\b", re.I)
_IMPORT = re.compile(r"^(from\s+\S+\s+)?import\s+\w", re.M)
_PYGAME = re.compile(r"^\s*(import|from)\s+pygame\b", re.M)


@dataclass(frozen=True)
class Extracted:
    """The program of an answer, "" if there is none. detail tells what was found, or why not."""

    program: str
    ok: bool
    detail: str


def extract_program(text: str, is_program: bool = False) -> Extracted:
    """Find the final program of a transcript, or take the whole text if it is a program.

    Thinking is what comes before `</think>`. Of several fenced blocks the last that is Python
    counts, since the prompt asks for the final game in a markdown section; drafts and shell lines
    don't. A block whose fence is never closed is judged as far as it goes: if the answer was cut
    off, the later stages show what is missing.

    >>> extract_program("<think>Hm, so the user wants a game").detail
    'the thinking never ends, so there is no answer'
    >>> extract_program("Hm.</think>Here:\\n```python\\nimport pygame\\n```").program
    'import pygame\\n'
    """
    if is_program:
        return Extracted(text, bool(text.strip()), "the file is the program")
    # A saved text does not say whether its prompt had the opening tag; a closing one tells.
    split = split_thinking(text, forced=CLOSE in text)
    if split.opened_by and not split.closed:
        return Extracted("", False, "the thinking never ends, so there is no answer")
    answer = split.answer.rpartition(CLOSE)[2]  # it may have thought again
    thought = f"behind {len(split.thinking):,} characters of thinking, " if split.opened_by else ""
    blocks = list(find_blocks(answer))
    block = _pick(blocks)
    if block is None:
        if blocks or not _IMPORT.search(answer):
            what = "no program: no fenced block of Python, and no line that is an import"
            return Extracted("", False, thought + what)
        return Extracted(answer, True, f"{thought}no fence, but all of the answer is a program")
    lines = block.source.count("\n")
    which = f"the last of {len(blocks)} blocks" if len(blocks) > 1 else "one fenced block"
    detail = f"{thought}{which}, {lines} lines"
    if not block.closed:
        detail += "; its fence is never closed, so more may have been meant to follow"
    return Extracted(block.source, bool(lines), detail)


def _pick(blocks: list[Block]) -> Block | None:
    """Return the last block that imports pygame, else the last that is Python or does not say."""
    games = [block for block in blocks if _PYGAME.search(block.source)]
    python = [block for block in blocks if _PYTHON.match(block.info or "python")]
    found = games or python
    return found[-1] if found else None


def check_imports(source: str) -> tuple[list[str], list[str]]:
    """Return the modules that a program imports, by their first part, and its faults in sentences.

    A fault is a module that isn't installed, unless it is imported under `try`, or a name that
    pygame doesn't have. source must parse.

    >>> check_imports("import pygame as pg\\nimport nowhere\\npg.draw.star(1, 2)\\n")[1]
    ['line 2: there is no module nowhere', 'line 3: pygame.draw has no star']
    """
    tree = ast.parse(source)
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


def _find(name: str) -> object:
    """Return what a dotted name of pygame means; None if there is no such thing."""
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError):
        return None
