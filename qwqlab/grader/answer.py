"""Find the program in a model's answer, and what it imports; nothing of it is run here.

The program comes after the thinking, in a fenced block of the answer.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import pkgutil
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

from ..experiments import Block, check_code, find_blocks
from ..sampling import CLOSE, split_thinking

_PYTHON = re.compile(r"^(python\d?|py|pygame)\b", re.I)
_PYGAME = re.compile(r"^\s*(import|from)\s+pygame\b", re.M)
_OTHER = re.compile(
    r"^(ba)?sh\b|^(console|shell|text|txt|json|ya?ml|diff|html|output|plaintext)", re.I
)


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
        check = check_code(answer)
        if blocks or not check.parses or check.problem or "import" not in answer:
            return Extracted("", False, f"{thought}no fenced block of Python")
        return Extracted(answer, True, f"{thought}no fence, but all of the answer is a program")
    lines = block.source.count("\n")
    which = f"the last of {len(blocks)} blocks" if len(blocks) > 1 else "one fenced block"
    if not block.closed:
        ends = "its fence is never closed, so more may have been meant to follow"
        return Extracted(block.source, bool(lines), f"{thought}{which}, {lines} lines; {ends}")
    return Extracted(block.source, bool(lines), f"{thought}{which}, {lines} lines")


def looks_like_answer(text: str) -> bool:
    """Return whether a text is a transcript, with fences or thinking, and no program."""
    return CLOSE in text or any(
        line.lstrip().startswith(("```", "~~~")) for line in text.splitlines()
    )


def _pick(blocks: list[Block]) -> Block | None:
    """Return the last block that imports pygame, else the last in Python, else the last of code."""
    code = [block for block in blocks if not _OTHER.match(block.info)]
    wanted = (
        [block for block in code if _PYGAME.search(block.source)],
        [block for block in code if _PYTHON.match(block.info)],
        code,
    )
    return next((some[-1] for some in wanted if some), None)


def find_missing(source: str) -> list[str]:
    """Return a sentence for each module that isn't installed and each name that isn't in pygame.

    source must parse. Imports under `try` may fail, so they don't count.

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
    """Return the modules that a program imports, by their first part, in the source's order."""
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
    """Yield line and sentence for what pygame does not have, such as `pygame.draw.star`."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
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
    """Return what a dotted name of pygame means; None if there is no such thing."""
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError):
        return None


def _exists(name: str) -> bool:
    return _find(name) is not None


def _is_module(name: str) -> bool:
    return isinstance(_find(name), ModuleType)
