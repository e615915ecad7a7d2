"""The token that broke a program: where it fails, traced back to a token that was forced in."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from ..records import Run
from .code_check import Block, CodeCheck, check_text, find_block


def find_break(run: Run, pieces: Sequence[str]) -> int | None:
    """The step that broke a run's first fenced program; None for a valid one, or none at all.

    pieces are the texts that the run's tokens added. Blamed is the first escape on the line that
    fails: that of the syntax error, or of the first use of a name that nothing binds. Without one
    it is the last escape of the program before that line, and in a program without escapes the
    first token of the line. A program that was only cut off was not broken by a token.
    """
    check, block = check_text(run.text), find_block(run.text)
    if check.valid or block is None or not check.line or _is_cut_off(check, block, run):
        return None
    starts = [0, *accumulate(len(piece) for piece in pieces)]
    top, _ = _bounds(run.text, block.line)
    begin, end = _bounds(run.text, block.line + check.line - 1)
    escapes = [step for step in run.escapes if starts[step + 1] > top and starts[step] < end]
    on_line = [step for step in escapes if starts[step + 1] > begin]
    if escapes:
        return (on_line or escapes[-1:])[0]
    return bisect_left(starts, begin + 1) - 1


def _is_cut_off(check: CodeCheck, block: Block, run: Run) -> bool:
    """Whether all that a program lacks is its end, which the limit took."""
    if block.closed or run.stop == "end" or check.unbound:
        return False
    at_the_end = check.line >= len(block.source.rstrip().splitlines())
    return at_the_end or "never closed" in check.problem or "unterminated" in check.problem


def _bounds(text: str, line: int) -> tuple[int, int]:
    """Where a line of a text begins and ends, as offsets; lines count from 1."""
    begin = 0
    for _ in range(line - 1):
        begin = text.find("\n", begin) + 1
    end = text.find("\n", begin)
    return begin, len(text) if end < 0 else end
