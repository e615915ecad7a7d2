"""Check programs that a model wrote: the process that `code_check` keeps beside the lab.

It reads programs as lines of JSON, and answers each with a line. Compilers are written for the
programs of people: ten nested `finally` become a thousand copies of the last one, and brackets in
brackets take stack. So each check has its seconds of processor, all of them their memory, and a
text that takes more ends this process and not the lab. No program is run. This file imports nothing
of the lab, so that it starts at once.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import dis
import json
import resource
import signal
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any

BYTES = 1 << 30
_DEEPEST = 800  # levels of a syntax tree; 33 is the most in the standard library
_FAT = BYTES >> 2 >> (0 if sys.platform == "darwin" else 10)  # as the system counts
# What gettext adds to builtins is not there when the program runs alone.
_BUILTINS = frozenset(dir(builtins)) - {"get_ipython", "display", "_"}
_KNOWN = _BUILTINS | frozenset(
    "__name__ __file__ __doc__ __package__ __loader__ __spec__ __cached__ __builtins__ __path__ "
    "__annotations__ __dict__ __module__ __qualname__ __class__ __firstlineno__".split()
)
# The compiler's steps that look a name up, or end one, beyond a function's own variables.
_LOOKUPS = {"LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS", "DELETE_NAME", "DELETE_GLOBAL"}


def check(source: str) -> dict[str, Any]:
    """Return the fields of a `CodeCheck`."""
    try:
        written = source.encode()  # as in a file, whose first lines may name another encoding
        tree = ast.parse(written)
        if _is_deep(tree):
            raise RecursionError
        compile(written, "<block>", "exec", dont_inherit=True)
        _take_out_weak_bindings(tree)
        code = compile(tree, "<block>", "exec", dont_inherit=True, optimize=0)
    except SyntaxError as error:
        return _refuse(error.msg or "invalid syntax", error.lineno or 0)
    except (RecursionError, MemoryError):
        return _refuse("nested too deeply, or too large, for the parser")
    except (ValueError, OverflowError) as error:
        return _refuse(str(error) or "not a source text")
    if not any(_does_something(statement) for statement in tree.body):
        return {"parses": True, "problem": "the block holds no statement"}
    if any(_binds_at_run_time(node) for node in ast.walk(tree)):
        return {"parses": True, "dynamic": True}
    return {"parses": True, "unbound": _find_unbound(code)}


def _is_deep(tree: ast.AST) -> bool:
    """Return whether nodes nest deeper than one who follows them by recursion can go."""
    level: list[ast.AST] = [tree]
    depth = 0
    while level and depth < _DEEPEST:
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        depth += 1
    return bool(level)


def _refuse(problem: str, line: int = 0) -> dict[str, Any]:
    return {"parses": False, "problem": problem, "line": line}


def _does_something(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr):
        return not isinstance(statement.value, ast.Constant)
    return not isinstance(statement, ast.Pass)


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
    """Yield the name of each instruction, the name that it takes, and its line in the program."""
    lines = {offset: line for offset, line in dis.findlinestarts(code) if line}
    line = code.co_firstlineno
    for step in dis.get_instructions(code):
        line = lines.get(step.offset, line)
        yield step.opname, step.argval if isinstance(step.argval, str) else "", line


def main() -> None:
    """Answer one program after another, until there are no more."""
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_CORE):
        with contextlib.suppress(ValueError, OSError):  # macOS
            resource.setrlimit(kind, (BYTES if kind == resource.RLIMIT_AS else 0,) * 2)
    seconds = float(sys.argv[1])
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # a parent may ignore it
    warnings.simplefilter("ignore")
    print("ready", flush=True)
    for line in sys.stdin.buffer:
        # Of processor, so that a busy machine changes no verdict.
        signal.setitimer(signal.ITIMER_PROF, seconds)
        answer = check(json.loads(line))
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(answer), flush=True)
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > _FAT:
            break  # what a huge text took is given back


if __name__ == "__main__":
    main()
