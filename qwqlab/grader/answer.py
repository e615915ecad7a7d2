"""Find the program in a model's answer; nothing of it is run here.

The program comes after the thinking, in a fenced block of the answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..experiments import check_code
from ..sampling import Answer, Block, find_answer, find_blocks

_IMPORT = re.compile(r"^[ \t]*(from[ \t]+\S+[ \t]+)?import[ \t]+\w", re.M)
_PYGAME = re.compile(r"^[ \t]*(import|from)[ \t]+pygame\b", re.M)
_WINDOW = "set_mode"  # what a program calls that opens one
# How a line of thinking begins. Where no tag says what is thinking, it may all be.
_THINKING = re.compile(
    r"^[ \t]*(?:(?:but |oh,? |hmm,? |no,? )?wait\b|hmm+\b|hold on\b|alternatively,"
    r"|let me (?:think|check|see)\b"
    r"|(?:okay|ok|alright),? (?:so i|so the|the user|i need)\b|so,? the user\b"
    r"|the user (?:wants|asks|is asking)\b)",
    re.I | re.M,
)
_UNSURE = "it can't be told whether the tag in line {line} of the answer ends thinking or is a word"


@dataclass(frozen=True)
class Extracted:
    """The program of an answer, "" if there is none. detail tells what was found, or why not."""

    program: str
    ok: bool
    detail: str


def extract_program(text: str, is_program: bool = False) -> Extracted:
    """Find the final program of a transcript, or take the whole text if it is a program.

    `find_answer` says where the thinking ends, and `find_blocks` what a block is. Of several blocks
    the last that imports pygame and opens a window counts, since the prompt asks for the final game
    in a markdown section; else the last that imports pygame, else the last that is Python. Drafts,
    snippets and shell lines don't. An answer without fences must be a program as a whole.

    What can't be told fails: two readings of the text that give two programs, a game outside the
    blocks behind the one that counts, a text that reads like thinking and has no tag (the prompt
    opened it, perhaps, and the limit took the rest), or a fence that is never closed around what
    does not parse.
    A program that an unclosed fence leaves whole is judged as far as it goes.

    >>> extract_program("<think>Hm, so the user wants a game").detail
    'the thinking never ends, so there is no answer'
    >>> extract_program("Hm.</think>Here:\\n```python\\nimport pygame\\n```").program
    'import pygame\\n'
    """
    if is_program:
        return Extracted(text, bool(text.strip()), "the file is the program")
    text = text.replace("\r\n", "\n")
    if _is_program(text):
        return Extracted(text, True, "no fence, but all of it is a program")
    answer = find_answer(text)
    program, detail = _choose(answer, text)
    if program and answer.thinking:
        detail = f"behind {answer.thinking:,} characters of thinking, {detail}"
    return Extracted(program, bool(program.strip()), detail)


def _choose(answer: Answer, transcript: str) -> tuple[str, str]:
    """Return the program of an answer and what it is, or "" and why there is none."""
    if answer.problem:
        return "", answer.problem
    if _is_program(answer.text):
        if answer.sure[0]:
            return "", _UNSURE.format(line=answer.sure[0])
        return answer.text, "no fence, but all of the answer is a program"
    fenced = list(find_blocks(answer.text))
    blocks = [block for block in fenced if not block.is_prose]
    block = _pick(blocks)
    if block is None:
        what = "and no line that is an import"
        if _PYGAME.search(answer.text):
            what = f"and as a whole the answer does not parse: {check_code(answer.text).reason}"
        return "", f"no program: no fenced block of Python, {what}"
    lines = block.source.count("\n")
    which = f"the last of {len(blocks)} blocks" if len(blocks) > 1 else "one fenced block"
    detail = f"{which}, {lines} lines"
    after, until = answer.sure
    if not after < block.line <= until:
        return "", _UNSURE.format(line=after or until)
    outside = _read_outside(answer.text, blocks)
    if _PYGAME.search("\n".join(outside[block.end - 1 :])):
        return "", f"{detail}; but pygame is imported behind it, too, outside the blocks"
    if not answer.thinking and (thought := _THINKING.search("\n".join(outside))):
        return "", f"{detail}; but {thought[0].strip()!r} reads like thinking, and no tag ends it"
    if not _PYGAME.search(block.source) and _PYGAME.search(transcript):
        return "", f"{detail}; it does not import pygame, and what does is no block of the answer"
    if not block.closed:
        detail += "; its fence is never closed, so more may have been meant to follow"
    if not block.is_python or not all(each.closed for each in fenced):
        if not (check := check_code(block.source)).parses:
            return "", f"{detail}; whether all of it is the program can't be told: {check.reason}"
    return block.source, detail


def _is_program(text: str) -> bool:
    return bool(_IMPORT.search(text)) and check_code(text).parses


def _pick(blocks: list[Block]) -> Block | None:
    """Return the last block that is a game, else that imports pygame, else that is Python."""
    pygame = [block for block in blocks if _PYGAME.search(block.source)]
    games = [block for block in pygame if _WINDOW in block.source]
    python = [each for each in blocks if each.is_python or _looks_like_python(each)]
    found = games or pygame or python
    return found[-1] if found else None


def _looks_like_python(block: Block) -> bool:
    return not block.info and bool(_IMPORT.search(block.source))


def _read_outside(text: str, blocks: list[Block]) -> list[str]:
    """Return the lines of a text, those in blocks empty."""
    lines = text.split("\n")
    for block in blocks:
        lines[block.line - 1 : block.end - 1] = [""] * (block.end - block.line)
    return lines
