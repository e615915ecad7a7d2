"""Can a program that a model wrote run at all? It must parse, and bind every name it uses.

Nothing here runs the program. `check_code` judges one, `check_text` the first of a text,
`check_run` that of a run, and `find_break` names the token that broke it. The check is coarser than
a linter's in most ways and finer in one: linters take `global pipes` for a binding, so they pass a
program that declares `pipes` global in three functions and assigns it in none. That program is the
failing sample of the article, and this module was made to catch it. `code_worker` compiles, in a
process of its own.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, Any

from ..errors import SandboxError
from ..sampling import Block, find_blocks, is_forced, split_thinking
from . import code_worker

if TYPE_CHECKING:
    from ..sampling import Run

CUT_OFF = "the block has no closing fence"
DYNAMIC = "a star import, exec or globals() may bind any name, so no name was judged"
SECONDS = 10  # of processor, for one check
_MOST = 300_000  # characters of a program
_MOST_NAMES = 20  # in a reason


@dataclass(frozen=True)
class CodeCheck:
    """The verdict of `check_code`.

    parses:  Python's compiler accepts the source.
    problem: why it could not be judged or does not parse ("" otherwise): the compiler's message,
             or "no fenced block", or "the block holds no statement".
    line:    the line that fails, from 1: of the syntax error, or of the first unbound name; 0 where
             there is none.
    unbound: names that are used and bound nowhere, each with the line of its first use.
    notes:   what limits the judgement, such as a star import.
    """

    parses: bool
    problem: str = ""
    line: int = 0
    unbound: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether the program parses, holds a statement and binds every name that it uses."""
        return self.parses and not self.problem and not self.unbound

    @property
    def reason(self) -> str:
        """Why the program is not valid, in one line; "" when it is."""
        if self.problem:
            where = f"line {self.line}: " if self.line else ""
            cut = " (the block is cut off)" if CUT_OFF in self.notes else ""
            return f"{where}{self.problem}{cut}"
        faults = [f"line {line}: {name} is bound nowhere" for name, line in self.unbound]
        more = len(faults) - _MOST_NAMES
        return ", ".join(faults[:_MOST_NAMES] + ([f"and {more:,} more"] if more > 0 else []))


def find_block(text: str) -> Block | None:
    """Return the first fenced block of a text, whatever its language; None without one.

    >>> find_block("Here:\\n```python\\nx = 1\\n```\\nDone.")
    Block(source='x = 1\\n', info='python', closed=True, line=3)
    >>> find_block("~~~\\nx = (")
    Block(source='x = (', info='', closed=False, line=2)
    """
    return next(find_blocks(text), None)


@functools.lru_cache(maxsize=8)  # a grade asks for one program several times
def check_code(source: str) -> CodeCheck:
    """Return whether a program can run, judged by its text alone.

    It is valid when (1) the compiler of the Python that runs the lab accepts it, (2) it holds a
    statement other than bare constants and `pass` (an empty block, or one of comments, shows
    that nothing was written), and (3) every name it uses is bound somewhere that the use can see:
    in its own scope, an enclosing function, the module, a function that declares it `global` and
    assigns it, or builtins. Conditional bindings count. `x += 1`, `del x` and a bare `x: int`
    give a name no first value, so they are uses and no bindings. After a star import no name is
    judged. A text of more than 300,000 characters, and one that takes the compiler more than
    10 s of processor or 1 GiB, is refused. Nothing that a text holds raises; no source is run.

    Known false positives: names made at run time (`globals()["x"] = 1`, an `_convert_` of enum),
    and names probed under `except NameError`. Known misses: a name bound after its use, attributes
    (`self.speed`), wrong arguments: those need a run.

    >>> check_code("def restart():\\n    global pipes\\n    pipes.clear()\\n").reason
    'line 3: pipes is bound nowhere'
    >>> check_code("for i in range(3)\\n    print(i)\\n").parses
    False
    >>> check_code("import math\\nprint(math.pi)\\n").valid
    True
    """
    if len(source) > _MOST:
        return CodeCheck(False, f"longer than the {_MOST:,} characters that are checked")
    found = _WORKER.ask(source)
    if isinstance(found, str):
        return CodeCheck(False, found)
    if found.get("dynamic"):
        return CodeCheck(True, notes=(DYNAMIC,))
    unbound = tuple((name, line) for name, line in found.get("unbound", ()))
    line = unbound[0][1] if unbound else found.get("line", 0)
    return CodeCheck(found["parses"], found.get("problem", ""), line, unbound)


def check_text(text: str) -> CodeCheck:
    """Return `check_code` of a text's first fenced block.

    >>> check_text("No code at all.").reason
    'no fenced block'
    >>> check_text("```python\\nprint('never ends").reason.endswith("(the block is cut off)")
    True
    """
    return _check_block(find_block(text))


def check_run(run: Run) -> CodeCheck:
    """Return `check_code` of a run's program (see `find_program`)."""
    split = split_thinking(run.text, is_forced(run.request.prompt))
    if split.opened_by and not split.closed:
        return CodeCheck(False, "the thinking never ends, so there is no answer")
    return _check_block(find_program(run))


def find_program(run: Run) -> Block | None:
    """Return the program of a run, its line that of the run's text; None without one.

    It is the first fenced block. Of a text that begins with thinking it is the last one behind
    `</think>`, of those in Python if some are: a model that thinks tries programs out before it
    answers, and may try one more in the answer.
    """
    split = split_thinking(run.text, is_forced(run.request.prompt))
    if split.opened_by is None:
        return find_block(run.text)
    blocks = list(find_blocks(split.answer))
    blocks = [block for block in blocks if block.is_python] or blocks
    if not blocks:
        return None
    before = run.text[: len(run.text) - len(split.answer)]
    return replace(blocks[-1], line=blocks[-1].line + before.count("\n"))


def _check_block(block: Block | None) -> CodeCheck:
    if block is None:
        return CodeCheck(False, "no fenced block")
    check = check_code(block.source)
    if block.closed:
        return check
    return replace(check, notes=(*check.notes, CUT_OFF))


def find_break(run: Run, pieces: Sequence[str]) -> int | None:
    """Return the step that broke a run's program; None if it is valid, or not there.

    pieces are the texts that the run's tokens added. The first escape on the line that fails is
    blamed: the line of the syntax error, or of the first use of a name that nothing binds. If there
    is none, it is the last escape of the program before that line, and in a program without escapes
    the first token of the line. A program that was only cut off was not broken by a token.
    """
    check, block = check_run(run), find_program(run)
    if check.valid or block is None or not check.line or _is_cut_off(check, block, run):
        return None
    starts = [0, *itertools.accumulate(len(piece) for piece in pieces)]
    top, _ = _bounds(run.text, block.line)
    begin, end = _bounds(run.text, block.line + check.line - 1)
    escapes = [step for step in run.escapes if starts[step + 1] > top and starts[step] < end]
    on_line = [step for step in escapes if starts[step + 1] > begin]
    if escapes:
        return (on_line or escapes[-1:])[0]
    return bisect_left(starts, begin + 1) - 1


def _is_cut_off(check: CodeCheck, block: Block, run: Run) -> bool:
    """Return whether a program misses nothing but its end, which the limit took."""
    if block.closed or run.stop == "end" or check.unbound:
        return False
    at_the_end = check.line >= len(block.source.rstrip().splitlines())
    return at_the_end or "never closed" in check.problem or "unterminated" in check.problem


def _bounds(text: str, line: int) -> tuple[int, int]:
    """Return where a line of a text begins and ends, as offsets; lines count from 1."""
    begin = 0
    for _ in range(line - 1):
        begin = text.find("\n", begin) + 1
    end = text.find("\n", begin)
    return begin, len(text) if end < 0 else end


class Worker:
    """The process that compiles, started when it is needed, and again where a text ended it."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._forget()
        atexit.register(self._end)
        # A forked child would read the answers that are its parent's.
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, source: str) -> dict[str, Any] | str:
        """Return what the worker found, or in words why it found nothing."""
        with self._lock:
            try:
                stdin, stdout = self._start()
                stdin.write(json.dumps(source).encode() + b"\n")
                stdin.flush()
                answer = stdout.readline()
            except BrokenPipeError:
                answer = b""
            except BaseException:  # an interrupt: the next text would get this one's answer
                self._end()
                raise
            if answer.endswith(b"\n"):
                return dict(json.loads(answer))
            status = self._end()
        if status == 0:  # it had ended before, to give memory back
            return self.ask(source)
        if status == -signal.SIGPROF:
            return f"takes the compiler more than {self._seconds} s"
        return "nested too deeply, or too large, for the compiler"

    def _start(self) -> tuple[IO[bytes], IO[bytes]]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._process = subprocess.Popen(
                [sys.executable, "-I", code_worker.__file__, str(self._seconds)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the lab
            )
            if self._process.stdout and not self._process.stdout.readline():
                raise SandboxError(f"{code_worker.__file__} does not start with {sys.executable}")
        assert self._process.stdin and self._process.stdout
        return self._process.stdin, self._process.stdout

    def _end(self) -> int:
        """Return how the worker ended; nothing of it runs behind this."""
        process, self._process = self._process, None
        if process is None:
            return 0
        try:
            process.communicate(timeout=0.5)  # at the end of its input it ends, unless it is busy
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        return process.returncode


_WORKER = Worker(SECONDS)
