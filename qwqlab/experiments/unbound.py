"""Names that a whole program uses and binds nowhere, from Python's own symbol tables.

Linters judge a name by the scope that declares it, and take `global pipes` for a binding. Here a
name counts as bound only where something in the program gives it a value.
"""

from __future__ import annotations

import ast
import builtins
import symtable
from collections.abc import Iterator
from dataclasses import dataclass

# What a notebook kernel or gettext adds to builtins is not there when the program runs alone.
_BUILTINS = frozenset(dir(builtins)) - {"get_ipython", "display", "_"}
_GIVEN = frozenset(
    "__name__ __file__ __doc__ __package__ __loader__ __spec__ __cached__ __builtins__ __path__ "
    "__annotations__ __dict__ __module__ __qualname__ __class__ __firstlineno__".split()
)


@dataclass(frozen=True)
class UnboundName:
    """A name that the program uses and never binds; line is that of its first use, from 1."""

    name: str
    line: int


def binds_at_run_time(node: ast.AST) -> bool:
    """Whether a node may bind names that no source shows: exec, globals(), a star import."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id in ("exec", "globals")
    return isinstance(node, ast.alias) and node.name == "*"


def find_unbound(tree: ast.Module, table: symtable.SymbolTable) -> list[UnboundName]:
    """Names that symtable resolves to a module that lacks them, or that nothing ever binds.

    tree and table are those of one source; the names come in the order of their first use.
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
        if (nowhere or _is_in(name.id, unseen)) and not _is_known(name.id):
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


def _is_known(name: str) -> bool:
    return name in _BUILTINS or name in _GIVEN


def _is_in(name: str, unseen: set[str]) -> bool:
    # symtable gives __name as _Class__name inside a class.
    if not name.startswith("__"):
        return name in unseen
    return any(each == name or (each.startswith("_") and each.endswith(name)) for each in unseen)


def _find_weak_targets(tree: ast.AST) -> Iterator[ast.Name]:
    """Targets that are given no first value: of `x += 1` and of a bare `x: int`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.AugAssign) or (isinstance(node, ast.AnnAssign) and not node.value):
            if isinstance(node.target, ast.Name):
                yield node.target


def _find_bindings(tree: ast.AST) -> Iterator[str]:
    """Every name that anything in the program gives a first value, whatever the scope."""
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
    """Each use of a name that Python evaluates, with the names local to the functions around it."""
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
