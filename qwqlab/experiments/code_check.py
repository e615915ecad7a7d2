"""Whether a program that a model wrote can run at all: it parses, and binds every name it uses.

Nothing here runs the program. The check is coarser than a linter's in most ways and finer in one:
linters take `global pipes` for a binding, so they pass a program that declares `pipes` global in
three functions and assigns it in none. That program is the failing sample of the article, and
this module was made to catch it.
"""

from __future__ import annotations

import ast
import itertools
import re
import symtable
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from .unbound import UnboundName, binds_at_run_time, find_unbound

MAX_CHARS = 100_000
_STACK_BYTES = 64 * 1024 * 1024
_STACK_LOCK = threading.Lock()
FINALLY_MAX = 10

_FENCE = re.compile(
    r"^(?P<quote>(?:[ \t]*>)*)(?P<indent>[ \t]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)?)"
    r"(?P<fence>`{3,}(?=[^`]*$)|~{3,})(?P<info>.*)$"
)


@dataclass(frozen=True)
class Block:
    """A fenced block: its source, its info string ("python"), whether its fence was closed, and the
    line of the text at which the source begins, from 1."""

    source: str
    info: str
    closed: bool
    line: int


@dataclass(frozen=True)
class CodeCheck:
    """What `check_code` found.

    parses:  Python's compiler accepts the source.
    problem: why it could not be judged or does not parse ("" otherwise): the compiler's message,
             or "no fenced block", or "the block holds no statement".
    line:    the line that fails, from 1: of the syntax error, or of the first unbound name; 0 where
             there is none.
    unbound: names that are used and bound nowhere, in the order of their first use.
    notes:   what limits the judgement, such as a star import.
    """

    parses: bool
    problem: str = ""
    line: int = 0
    unbound: tuple[UnboundName, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether the program parses, holds a statement and binds every name that it uses."""
        return self.parses and not self.problem and not self.unbound

    @property
    def reason(self) -> str:
        """One line that says why the program is not valid; "" when it is."""
        if self.problem:
            where = f"line {self.line}: " if self.line else ""
            cut = " (the block is cut off)" if CUT_OFF in self.notes else ""
            return f"{where}{self.problem}{cut}"
        return ", ".join(f"line {u.line}: {u.name} is bound nowhere" for u in self.unbound)


CUT_OFF = "the block has no closing fence"
DYNAMIC = "a star import, exec or globals() may bind any name, so no name was judged"


def find_block(text: str) -> Block | None:
    """The first fenced block of a Markdown text, whatever its language; None without one.

    >>> find_block("Here:\\n```python\\nx = 1\\n```\\nDone.")
    Block(source='x = 1\\n', info='python', closed=True, line=3)
    >>> find_block("~~~\\nx = (")
    Block(source='x = (', info='', closed=False, line=2)
    """
    return next(find_blocks(text), None)


def find_blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a Markdown text, in their order.

    The rules are CommonMark's, with two liberties: a fence may be indented by any amount (models
    put blocks into list items, also right behind the bullet), and then that indent is taken off
    each line. An unclosed fence runs to the end of the text, or of the quote that it stands in. A
    fence and its content on one line are inline code, not a block.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    at = 0
    while at < len(lines):
        opening = _FENCE.match(lines[at])
        at += 1
        if opening is None:
            continue
        indent, fence = re.sub(r"\S", " ", opening["indent"]), opening["fence"]
        closing = re.compile(rf"^[ \t]*{re.escape(fence[0])}{{{len(fence)},}}[ \t]*$")
        inner = _unquote(lines[at:], opening["quote"].count(">"))
        end = next((n for n, line in enumerate(inner) if closing.match(line)), None)
        content = [_strip_indent(line, indent) for line in inner[:end]]
        source = "\n".join(content) if end is None else "".join(f"{each}\n" for each in content)
        yield Block(source, opening["info"].strip(), end is not None, at + 1)
        at += len(inner) if end is None else end + 1


def check_code(source: str, *, max_chars: int = MAX_CHARS) -> CodeCheck:
    """Judge a program by its text alone.

    It is valid when (1) the compiler of the Python that runs the lab accepts it, (2) it holds a
    statement other than bare constants and `pass` (an empty block, or one of comments, shows
    that nothing was written), and (3) every name it uses is bound somewhere that the use can see:
    in its own scope, an enclosing function, the module, a function that declares it `global` and
    assigns it, or builtins. Conditional bindings count. `x += 1`, `del x` and a bare `x: int`
    give a name no first value, so they are uses and no bindings. After a star import no name is
    judged. Never raises and never runs the source; more than `max_chars` characters are not
    judged.

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
    if len(source) > max_chars:
        return CodeCheck(False, f"{len(source):,} characters, and at most {max_chars:,} are judged")
    result: list[CodeCheck] = []
    # Source nested thousands deep overflows the C stack of a thread with a small one. With this
    # stack the interpreter's own limits come first, and it raises.
    with _STACK_LOCK:
        before = threading.stack_size(_STACK_BYTES)
        try:
            thread = threading.Thread(target=lambda: result.append(_check(source)), daemon=True)
            thread.start()
        finally:
            threading.stack_size(before)
        thread.join()  # within the lock, since the check filters the whole process's warnings
    return result[0]


def check_text(text: str) -> CodeCheck:
    """Judge the first fenced block of a text (see `find_block` and `check_code`).

    >>> check_text("No code at all.").reason
    'no fenced block'
    >>> check_text("```python\\nprint('never ends").reason.endswith("(the block is cut off)")
    True
    """
    block = find_block(text)
    if block is None:
        return CodeCheck(False, "no fenced block")
    check = check_code(block.source)
    if block.closed:
        return check
    notes = (*check.notes, CUT_OFF)
    return CodeCheck(check.parses, check.problem, check.line, check.unbound, notes)


def is_valid(text: str) -> bool:
    """Whether the first fenced block of a text parses and binds every name it uses."""
    return check_text(text).valid


def _unquote(lines: list[str], depth: int) -> list[str]:
    """The lines without the marks of a quote so deep, up to the first line that is not in it."""
    if not depth:
        return lines
    marks = re.compile(rf"(?:[ \t]*>){{{depth}}}(.*)", re.S)
    quoted = itertools.takewhile(bool, map(marks.fullmatch, lines))
    return [line[1] for line in quoted if line]


def _strip_indent(line: str, indent: str) -> str:
    taken = 0
    while taken < min(len(indent), len(line)) and line[taken] in " \t":
        taken += 1
    return line[taken:]


def _check(source: str) -> CodeCheck:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(source)
            if _count_finally(tree) > FINALLY_MAX:
                return CodeCheck(False, "`finally` is nested too deeply for the compiler")
            compile(source, "<block>", "exec", dont_inherit=True)
            if not any(_does_something(statement) for statement in tree.body):
                return CodeCheck(True, "the block holds no statement")
            table = symtable.symtable(source, "<block>", "exec")
        except SyntaxError as error:
            return CodeCheck(False, error.msg or "invalid syntax", error.lineno or 0)
        except (RecursionError, MemoryError):
            return CodeCheck(False, "nested too deeply for the parser")
        except (ValueError, OverflowError) as error:
            return CodeCheck(False, str(error) or "not a source text")
    if any(binds_at_run_time(node) for node in ast.walk(tree)):
        return CodeCheck(True, notes=(DYNAMIC,))
    unbound = tuple(find_unbound(tree, table))
    return CodeCheck(True, line=unbound[0].line if unbound else 0, unbound=unbound)


def _count_finally(node: ast.AST) -> int:
    """The deepest nesting of `finally` blocks: the compiler copies each, so a level doubles it."""
    copied = set(getattr(node, "finalbody", ()))
    return max(
        (_count_finally(child) + (child in copied) for child in ast.iter_child_nodes(node)),
        default=0,
    )


def _does_something(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr):
        return not isinstance(statement.value, ast.Constant)
    return not isinstance(statement, ast.Pass)
