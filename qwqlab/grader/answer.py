"""The program in what a model answered: behind its thinking, in the last of its fences."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..pycode import Block, check_code, find_blocks
from ..thinking import CLOSE, split_thinking

_PYTHON = re.compile(r"^(python\d?|py|pygame)\b", re.I)
_PYGAME = re.compile(r"^\s*(import|from)\s+pygame\b", re.M)
_OTHER = re.compile(
    r"^(ba)?sh\b|^(console|shell|text|txt|json|ya?ml|diff|html|output|plaintext)", re.I
)


@dataclass(frozen=True)
class Extracted:
    """The program of an answer; "" where there is none. detail says what was found, or why not."""

    program: str
    ok: bool
    detail: str


def extract_program(text: str, is_program: bool = False) -> Extracted:
    """Find the final program of a transcript, or take the text whole where it is a program.

    Thinking is what stands before `</think>`. Of several fenced blocks the last that is
    Python counts, as the prompt asks for the final game in a markdown section; drafts and shell
    lines don't. A block whose fence is never closed is judged as far as it goes: where the answer
    was cut off, the later stages show what lacks.

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


def _pick(blocks: list[Block]) -> Block | None:
    """The last block that imports pygame; else the last in Python, else the last with code."""
    code = [block for block in blocks if not _OTHER.match(block.info)]
    wanted = (
        [block for block in code if _PYGAME.search(block.source)],
        [block for block in code if _PYTHON.match(block.info)],
        code,
    )
    return next((some[-1] for some in wanted if some), None)
