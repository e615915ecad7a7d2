"""Find the program in a model's answer; nothing of it is run here.

The program comes after the thinking, in a fenced block of the answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

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
