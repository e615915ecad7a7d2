"""The parts of the notebooks and of README that are written from what is said elsewhere.

- an exercise: four cells (question, stub, check, folded solution) from `qwqlab/course/exercises`.
  A cell whose metadata says `"exercise": NAME` stands for all four, wherever it is put;
- what a notebook costs, at its top, and the tables of all of them, from the notebooks' metadata;
- the links to the previous and the next notebook, and to the contents.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from qwqlab.course import Exercise, Notebook, draw_table, list_exercises
from qwqlab.course.notebooks import Contract

Cell = dict[str, Any]
TABLE = re.compile(r"(?s)(?<=<!-- course -->\n).*?(?=<!-- /course -->)")
COST = re.compile(r"(?s)(?<=\*\*What it costs:\*\* ).*?\.(?=\s|$)")
LINKS = re.compile(r"(?s)\n\*\*(Previous|Contents|Next):\*\*.*\Z")
HOW = "Replace `...`, run the cell and then the one below it, which says whether you are right."


def fill_notebook(content: dict[str, Any], course: Sequence[Notebook], place: int) -> None:
    """Write the generated parts of the notebook that stands at `place` in the course."""
    cells, this = content["cells"], course[place]
    content["cells"] = cells = _fill_exercises(cells, list_exercises(this.path.stem))
    first, last = cells[0], cells[-1]
    first["source"] = COST.sub(lambda _: tell_costs(this.contract), _source(first), count=1)
    links = [] if place == 0 else [f"**Previous:** {course[place - 1].link()}"]
    links += [] if place == 0 else [f"**Contents:** {course[0].link()}"]
    links += [f"**Next:** {each.link()}" for each in course[place + 1 : place + 2]]
    last["source"] = LINKS.sub("", _source(last)).rstrip() + "\n\n" + " · ".join(links)
    for cell in cells:
        if cell["cell_type"] == "markdown":
            cell["source"] = fill_tables(_source(cell), course)


def tell_costs(contract: Contract) -> str:
    """What a notebook costs, in words.

    >>> tell_costs(Contract(3.2, 1.2, 1, "none", "optional"))
    '4 minutes of computing on two cores, 1.2 GB of disk, 1 GB of memory, no GPU, no network.'
    """
    minutes = math.ceil(contract.minutes)
    parts = [
        f"{minutes} minute{'s' * (minutes > 1)} of computing on two cores",
        *([f"{contract.disk_gb:g} GB of disk"] if contract.disk_gb else []),
        f"{contract.memory_gb:g} GB of memory",
        "a GPU" if contract.gpu == "needed" else "no GPU",
        "a network" if contract.network == "needed" else "no network",
    ]
    return ", ".join(parts) + "."


def fill_tables(text: str, course: Sequence[Notebook], folder: str = "") -> str:
    """A page with the course's table between its marks."""
    return TABLE.sub(lambda _: f"\n{draw_table(course, folder)}\n\n", text)


def _fill_exercises(cells: Sequence[Cell], exercises: Sequence[Exercise]) -> list[Cell]:
    """The cells with each exercise's four written anew, where the first of them stands."""
    by_name = {each.name: each for each in exercises}
    filled, done = list[Cell](), list[str]()
    for cell in cells:
        name = cell["metadata"].get("exercise")
        if name is None:
            filled.append(cell)
        elif name not in done:
            if name not in by_name:
                raise ValueError(f"there is no exercise {name}: look into qwqlab/course/exercises")
            done.append(name)
            filled += write_exercise(by_name[name], len(done))
    missing = [name for name in by_name if name not in done]
    if missing:
        raise ValueError(f'the exercise {missing[0]} has no cell: give one "exercise" metadata')
    return filled


def write_exercise(exercise: Exercise, number: int) -> list[Cell]:
    """The four cells of an exercise, the `number`-th of its notebook."""
    how = f"\n\n{HOW}" if number == 1 else ""
    asked = unwrap(exercise.check.__doc__ or "")
    question = f"### Exercise {number}: {exercise.kind}\n\n{asked}{how}"
    after = f"\n\n{unwrap(exercise.after)}" if exercise.after else ""
    solution = (
        "<details><summary>Solution</summary>\n\n"
        f"```python\n{exercise.solution}\n```{after}\n\n</details>"
    )
    return [
        _make_cell(exercise, "question", "markdown", question),
        _make_cell(exercise, "stub", "code", exercise.stub),
        _make_cell(exercise, "check", "code", write_call(exercise)),
        _make_cell(exercise, "solution", "markdown", solution),
    ]


def write_call(exercise: Exercise) -> str:
    """The line that checks an answer."""
    return f"check.{exercise.name}({', '.join(exercise.asked)})"


def unwrap(text: str) -> str:
    """A text with each paragraph on one line."""
    return "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip()))


def _make_cell(exercise: Exercise, part: str, kind: str, source: str) -> Cell:
    cell: Cell = {
        "cell_type": kind,
        "id": f"{exercise.name.replace('_', '-')}-{part}",
        "metadata": {"exercise": exercise.name, "tags": [f"exercise-{part}"]},
        "source": source,
    }
    return cell if kind == "markdown" else {**cell, "execution_count": None, "outputs": []}


def _source(cell: Cell) -> str:
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)
