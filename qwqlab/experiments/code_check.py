"""Can a program that a model wrote run at all? It must parse, and bind every name it uses.

Nothing here runs the program. `find_blocks` finds the programs in a text, `check_code` judges one,
and `find_break` names the token that broke it. The check is coarser than a linter's in most ways
and finer in one: linters take `global pipes` for a binding, so they pass a program that declares
`pipes` global in three functions and assigns it in none. That program is the failing sample of the
article, and this module was made to catch it.
"""

from __future__ import annotations

import ast
import builtins
import dis
import itertools
import re
import threading
import types
import warnings
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..sampling import Run

CUT_OFF = "the block has no closing fence"
DYNAMIC = "a star import, exec or globals() may bind any name, so no name was judged"
_WARNINGS = threading.Lock()  # the filters that a check sets are the whole process's
# What a notebook kernel or gettext adds to builtins is not there when the program runs alone.
_BUILTINS = frozenset(dir(builtins)) - {"get_ipython", "display", "_"}
_KNOWN = _BUILTINS | frozenset(
    "__name__ __file__ __doc__ __package__ __loader__ __spec__ __cached__ __builtins__ __path__ "
    "__annotations__ __dict__ __module__ __qualname__ __class__ __firstlineno__".split()
)
# The compiler's steps that look a name up, or end one, beyond a function's own variables.
_LOOKUPS = {"LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS", "DELETE_NAME", "DELETE_GLOBAL"}
_FENCE = re.compile(
    r"^(?P<indent>[ \t]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)?)"
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
        return ", ".join(f"line {line}: {name} is bound nowhere" for name, line in self.unbound)


def find_block(text: str) -> Block | None:
    """Return the first fenced block of a Markdown text, whatever its language; None without one.

    >>> find_block("Here:\\n```python\\nx = 1\\n```\\nDone.")
    Block(source='x = 1\\n', info='python', closed=True, line=3)
    >>> find_block("~~~\\nx = (")
    Block(source='x = (', info='', closed=False, line=2)
    """
    return next(find_blocks(text), None)


def find_blocks(text: str) -> Iterator[Block]:
    """Yield the fenced blocks of a Markdown text, in their order.

    The rules are CommonMark's, with two liberties: a fence may be indented by any amount (models
    put blocks into list items, also right behind the bullet), and then that indent is taken off
    each line. An unclosed fence runs to the end of the text. A fence and its content on one line
    are inline code, not a block. Blocks in quotes ("> ```") are not looked for.
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
        end = next((n for n in range(at, len(lines)) if closing.match(lines[n])), None)
        content = [_strip_indent(line, indent) for line in lines[at:end]]
        source = "\n".join(content) if end is None else "".join(f"{each}\n" for each in content)
        yield Block(source, opening["info"].strip(), end is not None, at + 1)
        at = len(lines) if end is None else end + 1


def check_code(source: str) -> CodeCheck:
    """Return whether a program can run, judged by its text alone.

    It is valid when (1) the compiler of the Python that runs the lab accepts it, (2) it holds a
    statement other than bare constants and `pass` (an empty block, or one of comments, shows
    that nothing was written), and (3) every name it uses is bound somewhere that the use can see:
    in its own scope, an enclosing function, the module, a function that declares it `global` and
    assigns it, or builtins. Conditional bindings count. `x += 1`, `del x` and a bare `x: int`
    give a name no first value, so they are uses and no bindings. After a star import no name is
    judged. Never raises and never runs the source.

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
    try:
        with _WARNINGS, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
            compile(source, "<block>", "exec", dont_inherit=True)
            _take_out_weak_bindings(tree)
            code = compile(tree, "<block>", "exec", dont_inherit=True, optimize=0)
    except SyntaxError as error:
        return CodeCheck(False, error.msg or "invalid syntax", error.lineno or 0)
    except (RecursionError, MemoryError):
        return CodeCheck(False, "nested too deeply for the parser")
    except (ValueError, OverflowError) as error:
        return CodeCheck(False, str(error) or "not a source text")
    if not any(_does_something(statement) for statement in tree.body):
        return CodeCheck(True, "the block holds no statement")
    if any(_binds_at_run_time(node) for node in ast.walk(tree)):
        return CodeCheck(True, notes=(DYNAMIC,))
    unbound = tuple(_find_unbound(code))
    return CodeCheck(True, line=unbound[0][1] if unbound else 0, unbound=unbound)


def check_text(text: str) -> CodeCheck:
    """Return `check_code` of a text's first fenced block.

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
    return replace(check, notes=(*check.notes, CUT_OFF))


def find_break(run: Run, pieces: Sequence[str]) -> int | None:
    """Return the step that broke a run's first fenced program; None if it is valid, or not there.

    pieces are the texts that the run's tokens added. The first escape on the line that fails is
    blamed: the line of the syntax error, or of the first use of a name that nothing binds. If there
    is none, it is the last escape of the program before that line, and in a program without escapes
    the first token of the line. A program that was only cut off was not broken by a token.
    """
    check, block = check_text(run.text), find_block(run.text)
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


def _strip_indent(line: str, indent: str) -> str:
    taken = 0
    while taken < min(len(indent), len(line)) and line[taken] in " \t":
        taken += 1
    return line[taken:]


def _does_something(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr):
        return not isinstance(statement.value, ast.Constant)
    return not isinstance(statement, ast.Pass)


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


def _binds_at_run_time(node: ast.AST) -> bool:
    """Return whether a node may bind names that no source shows: exec, globals(), a star import."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id in ("exec", "globals")
    return isinstance(node, ast.alias) and node.name == "*"


def _find_unbound(program: types.CodeType) -> list[tuple[str, int]]:
    """Return the names that a program looks up and nothing binds, by their first use.

    The compiler has settled whose variable a name is. What is left to be looked up while the
    program runs must be bound by the module, by a `global` that is assigned, or, in the body of a
    class, by that class.
    """
    codes = [program]
    for code in codes:
        codes += [each for each in code.co_consts if isinstance(each, types.CodeType)]
    steps = [list(_read_steps(code)) for code in codes]
    bound = {name for each in steps for step, name, _ in each if step == "STORE_GLOBAL"}
    bound |= {name for step, name, _ in steps[0] if step == "STORE_NAME"} | _KNOWN
    lines: dict[str, int] = {}
    for each in steps:
        own = {name for step, name, _ in each if step == "STORE_NAME"}
        for step, name, line in each:
            if step in _LOOKUPS and name not in bound and name not in own:
                lines[name] = min(line, lines.get(name, line))
    return sorted(lines.items(), key=lambda found: (found[1], found[0]))


def _take_out_weak_bindings(tree: ast.Module) -> None:
    """Turn each `x += 1` into `x + 1`: it needs a first value and gives none."""
    for node in ast.walk(tree):
        for block in ("body", "orelse", "finalbody"):
            if isinstance(statements := getattr(node, block, None), list):
                statements[:] = map(_take_out_store, statements)


def _take_out_store(statement: ast.stmt) -> ast.stmt:
    if not isinstance(statement, ast.AugAssign) or not isinstance(statement.target, ast.Name):
        return statement
    name = ast.Name(statement.target.id, ast.Load())
    value = ast.BinOp(ast.copy_location(name, statement), statement.op, statement.value)
    return ast.copy_location(ast.Expr(ast.copy_location(value, statement)), statement)


def _read_steps(code: types.CodeType) -> Iterator[tuple[str, str, int]]:
    """Yield the name of each instruction, that of its variable, and its line in the program."""
    lines = {offset: line for offset, line in dis.findlinestarts(code) if line}
    line = code.co_firstlineno
    for step in dis.get_instructions(code):
        line = lines.get(step.offset, line)
        yield step.opname, str(step.argval), line
