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
import itertools
import re
import symtable
import threading
import warnings
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
class UnboundName:
    """A name that the program uses and never binds; line is that of its first use, from 1."""

    name: str
    line: int


@dataclass(frozen=True)
class CodeCheck:
    """The verdict of `check_code`.

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
        """Why the program is not valid, in one line; "" when it is."""
        if self.problem:
            where = f"line {self.line}: " if self.line else ""
            cut = " (the block is cut off)" if CUT_OFF in self.notes else ""
            return f"{where}{self.problem}{cut}"
        return ", ".join(f"line {u.line}: {u.name} is bound nowhere" for u in self.unbound)


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
            table = symtable.symtable(source, "<block>", "exec")
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
    unbound = tuple(_find_unbound(tree, table))
    return CodeCheck(True, line=unbound[0].line if unbound else 0, unbound=unbound)


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
    notes = (*check.notes, CUT_OFF)
    return CodeCheck(check.parses, check.problem, check.line, check.unbound, notes)


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


def _find_unbound(tree: ast.Module, table: symtable.SymbolTable) -> list[UnboundName]:
    """Return the names that nothing binds where symtable looks for them, by their first use.

    Linters judge a name by the scope that declares it. Here a name counts as bound only where
    something in the program gives it a value.
    """
    tables = list(_walk_tables(table))
    in_module = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()}
    for symbol in (s for t in tables for s in t.get_symbols() if s.is_declared_global()):
        if symbol.is_assigned() or symbol.is_imported():
            in_module.add(symbol.get_name())
    unseen = {
        symbol.get_name()
        for each in tables
        for symbol in each.get_symbols()
        if symbol.is_referenced()
        # A function named "top" is taken for the module by symtable: its locals are "global" too.
        and (each is table or (symbol.is_global() and not symbol.is_local()))
        and symbol.get_name() not in in_module
    }
    bound_somewhere = set(_find_bindings(tree))
    hidden_by = {(t.get_name(), t.get_lineno()): t for t in tables if t.get_type() == "function"}
    lines: dict[str, tuple[int, int]] = {}
    for name, hidden in _find_uses(tree, hidden_by):
        nowhere = name.id not in bound_somewhere
        if (nowhere or _is_in(name.id, unseen)) and name.id not in _KNOWN:
            # A use that an enclosing function's own variable hides is not the one meant.
            shadowed = int(not nowhere and name.id in hidden)
            lines[name.id] = min(lines.get(name.id, (2, 0)), (shadowed, name.lineno))
    found = [UnboundName(name, line) for name, (_, line) in lines.items()]
    return sorted(found, key=lambda u: (u.line, u.name))


def _walk_tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    waiting = [table]
    while waiting:
        yield (each := waiting.pop())
        waiting.extend(each.get_children())


def _is_in(name: str, unseen: set[str]) -> bool:
    # symtable gives __name as _Class__name inside a class.
    if not name.startswith("__"):
        return name in unseen
    return any(each == name or (each.startswith("_") and each.endswith(name)) for each in unseen)


def _find_weak_targets(tree: ast.AST) -> Iterator[ast.Name]:
    """Yield targets that get no first value: of `x += 1` and of a bare `x: int`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.AugAssign) or (isinstance(node, ast.AnnAssign) and not node.value):
            if isinstance(node.target, ast.Name):
                yield node.target


def _find_bindings(tree: ast.AST) -> Iterator[str]:
    """Yield every name that anything in the program gives a first value, whatever the scope."""
    weak = set(_find_weak_targets(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Store) and node not in weak:
                yield node.id
        elif isinstance(node, ast.alias):
            yield node.asname or node.name.partition(".")[0]
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.MatchMapping):
            if node.rest:
                yield node.rest
        elif isinstance(name := getattr(node, "name", None), str):
            # def, class, except ... as, case ... as, *rest in a pattern, type parameters
            yield name


def _find_uses(
    tree: ast.Module,
    tables: dict[tuple[str, int], symtable.SymbolTable],
) -> Iterator[tuple[ast.Name, frozenset[str]]]:
    """Yield each name that Python evaluates, with the names local to the functions around it."""
    lazy = any(
        isinstance(node, ast.ImportFrom)
        and node.module == "__future__"
        and any(alias.name == "annotations" for alias in node.names)
        for node in tree.body
    )
    waiting: list[tuple[ast.AST, frozenset[str], bool]] = [(tree, frozenset(), False)]
    while waiting:
        node, hidden, in_function = waiting.pop()
        if isinstance(node, ast.Name):
            if not isinstance(node.ctx, ast.Store):
                yield node, hidden
            continue
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            yield node.target, hidden
        own, inside = hidden, in_function
        if isinstance(node, ast.ClassDef):
            inside = False
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            table = tables.get((getattr(node, "name", "lambda"), node.lineno))
            inside = True
            if table is not None:
                own |= {s.get_name() for s in table.get_symbols() if s.is_local()}
        elif isinstance(node, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            targets = (each for part in node.generators for each in ast.walk(part.target))
            hidden |= {each.id for each in targets if isinstance(each, ast.Name)}
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns"):
                # Annotations of a function's variables are never evaluated.
                if lazy or (in_function and isinstance(node, ast.AnnAssign)):
                    continue
            body = name == "body"
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    waiting.append(
                        (child, own if body else hidden, inside if body else in_function)
                    )
