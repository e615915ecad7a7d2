"""Does a check cell of the notebooks notice if its claim is wrong?

    python tests/invert_claims.py [NOTEBOOK ...]

Each notebook is run in its short form. Behind every cell with an assert its claims are inverted,
one at a time, and asked again of the same values: a sign is turned, an arm is swapped for another,
a number is moved by the tolerance that the cell states (or by one). A claim that still holds when
it says the opposite says nothing. Prints what was not noticed, and the counts.
"""

from __future__ import annotations

import ast
import copy
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[1]
MARK = "inverted claims:"
Cell = dict[str, Any]
Change = Callable[[Sequence[Any]], None]
OPPOSITE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
ASK = """\
def _ask(claims):
    import contextlib, io, json
    told = []
    for name, source in claims:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(source, dict(globals()))
            told.append([name, False])
        except Exception:
            told.append([name, True])
    print({mark!r} + json.dumps(told))
_ask({claims!r})"""


def main(names: list[str]) -> int:
    """Run the notebooks, and tell which inverted claims went unnoticed."""
    with tempfile.TemporaryDirectory(prefix="claims-") as folder:
        environ = {**os.environ, "QWQLAB_BOOK": folder, "QWQLAB_PROGRESS": f"{folder}/progress"}
        make = [sys.executable, "docs/make_book.py", "write", "1", "short"]
        subprocess.run(make, cwd=CHECKOUT, env=environ, check=True)
        books = sorted(Path(folder, "run").glob("*.ipynb"))
        books = [path for path in books if not names or path.stem[:2] in names]
        for path in books:
            content = json.loads(path.read_text(encoding="utf-8"))
            content["cells"] = list(add_questions(content["cells"]))
            path.write_text(json.dumps(content), encoding="utf-8")
        run = [sys.executable, "-m", "pytest", "-q", "--nbmake", "--overwrite", *map(str, books)]
        subprocess.run(run, cwd=CHECKOUT, env=environ, check=False)
        told = {path.stem: read_answers(path) for path in books}
    return tell(told)


def add_questions(cells: list[Cell]) -> Iterator[Cell]:
    """Yield the cells, and behind each that asserts one that asks its inverted claims."""
    for cell in cells:
        yield cell
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and "track" not in cell["metadata"] and "assert" in source:
            claims = list(invert(source))
            if claims:
                own = {"id": f"{cell['id'][:50]}-inverted", "metadata": {"track": {}}}
                asked = ASK.format(mark=MARK, claims=claims)
                yield {**copy.deepcopy(cell), **own, "source": asked}


def invert(source: str) -> Iterator[tuple[str, str]]:
    """Yield a name and the source of each inverted claim: one statement of the cell, changed."""
    for statement in ast.parse(source).body:
        for place, (change, what) in enumerate(list_changes(statement)):
            changed = copy.deepcopy(statement)
            nodes = list(ast.walk(changed))
            change(nodes)
            text = ast.unparse(ast.fix_missing_locations(changed))
            yield f"{place} {what}: {ast.unparse(statement)[:100]}", text


def list_changes(statement: ast.stmt) -> Iterator[tuple[Change, str]]:
    """Yield for each claim in a statement a function that inverts it in a list of its nodes."""
    nodes = list(ast.walk(statement))
    asserted = [(place, each) for place, each in enumerate(nodes) if isinstance(each, ast.Assert)]
    inside = {id(node) for _, each in asserted for node in ast.walk(each.test)}
    keys: list[tuple[int, str]] = []
    for place, node in enumerate(nodes):
        if id(node) not in inside:
            continue
        if isinstance(node, ast.Compare):
            for number, operator in enumerate(node.ops):

                def turn(copies: Sequence[Any], place: int = place, number: int = number) -> None:
                    old = type(copies[place].ops[number])
                    copies[place].ops[number] = OPPOSITE[old]()

                yield turn, f"sign {type(operator).__name__}"
            yield from move_numbers(node, place)
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            if isinstance(node.slice.value, str):
                keys.append((place, node.slice.value))
    values = {constant for _, constant in keys}
    if len(values) > 1:

        def swap(copies: Sequence[Any], keys: list[tuple[int, str]] = keys) -> None:
            names = list(dict.fromkeys(name for _, name in keys))
            other = dict(zip(names, names[1:] + names[:1], strict=True))
            for place, name in keys:
                copies[place].slice.value = other[name]

        yield swap, "arms swapped"
    for place, each in asserted:
        if not any(isinstance(node, ast.Compare) for node in ast.walk(each.test)):

            def deny(copies: Sequence[Any], place: int = place) -> None:
                copies[place].test = ast.UnaryOp(ast.Not(), copies[place].test)

            yield deny, "denied"


def move_numbers(node: ast.Compare, place: int) -> Iterator[tuple[Change, str]]:
    """Yield the changes of a number that is claimed: by its tolerance, or an equal one by one."""
    left, right = node.left, node.comparators[-1]
    is_close = (
        isinstance(left, ast.Call)
        and isinstance(left.func, ast.Name)
        and left.func.id == "abs"
        and isinstance(left.args[0], ast.BinOp)
        and isinstance(right, ast.Constant)
    )
    if is_close:

        def move(copies: Sequence[Any]) -> None:
            moved = copies[place]
            twice = ast.Constant(2 * moved.comparators[-1].value)
            moved.left.args[0] = ast.BinOp(moved.left.args[0], ast.Add(), twice)

        yield move, "moved by twice its tolerance"
    elif isinstance(node.ops[0], ast.Eq) and isinstance(right, ast.Constant):
        value = right.value
        if isinstance(value, (int, float)) and not isinstance(value, bool):

            def add_one(copies: Sequence[Any], value: float = value) -> None:
                copies[place].comparators[-1] = ast.Constant(value + 1)

            yield add_one, "moved by one"


def read_answers(path: Path) -> dict[str, list[tuple[str, bool]]]:
    """Return what each cell noticed, by the cell's name."""
    found = {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            for line in "".join(output.get("text", "")).splitlines():
                if line.startswith(MARK):
                    found[cell["id"].removesuffix("-inverted")] = json.loads(line[len(MARK) :])
    return found


def tell(told: dict[str, dict[str, list[tuple[str, bool]]]]) -> int:
    """Print what went unnoticed, and the counts; return 1 if more than a third of the cells did."""
    n_cells = n_whole = n_claims = n_noticed = 0
    for notebook, cells in told.items():
        for cell, claims in cells.items():
            missed = [name for name, noticed in claims if not noticed]
            n_cells, n_whole = n_cells + 1, n_whole + (not missed)
            n_claims, n_noticed = n_claims + len(claims), n_noticed + len(claims) - len(missed)
            for name in missed:
                print(f"{notebook}, {cell}: not noticed: {name}")
    print(f"{n_noticed} of {n_claims} inverted claims are noticed; in {n_whole} of {n_cells} cells "
          "all of them are.")  # fmt: skip
    return int(3 * n_whole < 2 * n_cells)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
