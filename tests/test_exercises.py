"""The folded solutions of the notebooks' exercises pass the checks that stand under the exercises.

An exercise is three cells: one tagged `exercise` that the reader fills in, one tagged
`exercise-check`, and Markdown that holds the solution as a Python block. Cells tagged `needed` run
before it. A notebook without such cells has nothing to test here.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from qwqlab.paths import CHECKOUT

NOTEBOOKS = sorted((CHECKOUT / "notebooks").glob("*.ipynb"))
Cell = dict[str, Any]


def read_cells(name: str) -> list[Cell]:
    text = (CHECKOUT / "notebooks" / name).read_text(encoding="utf-8")
    return list(json.loads(text)["cells"])


def has_tag(cell: Cell, tag: str) -> bool:
    return tag in cell["metadata"].get("tags", [])


def source(cell: Cell) -> str:
    return "".join(cell["source"])


def find_exercises() -> list[tuple[str, int]]:
    return [
        (path.name, place)
        for path in NOTEBOOKS
        for place, cell in enumerate(read_cells(path.name))
        if has_tag(cell, "exercise")
    ]


@pytest.mark.parametrize(("name", "place"), find_exercises())
def test_a_folded_solution_passes_the_check_under_its_exercise(name, place, monkeypatch, capsys):
    monkeypatch.chdir(CHECKOUT / "notebooks")
    cells = read_cells(name)
    check, prose = cells[place + 1], source(cells[place + 2])
    assert has_tag(check, "exercise-check") and "<details>" in prose
    solution = re.search(r"```python\n(.*?)```", prose, re.DOTALL)
    assert solution, "the solution holds no Python block"
    names: dict[str, Any] = {}
    for cell in cells[:place]:
        if has_tag(cell, "needed"):
            exec(source(cell), names)
    exec(source(cells[place]), names)
    exec(source(check), names)
    assert "Not answered yet." in capsys.readouterr().out
    exec(solution[1], names)
    exec(source(check), names)
    assert capsys.readouterr().out.strip() == "Right."
