"""Check the form of every notebook, as `make check` does; `--fix` mends what can be mended.

The rules:
- what is written from elsewhere is up to date: exercises, costs, tables, links (notebook_parts),
  and every notebook has exercises to predict, to change and to build something;
- nothing of a run is kept (outputs, counts, widget state, timings), and lines are written as
  Jupyter writes them, one by one;
- exactly one H1, in the first cell; the kernel is python3; every cell has an id of its own;
- a code cell has at most 15 lines;
- local links lead to something;
- an image has a text in its place;
- a figure is shown in words too: either by `show_figure(...)`, which prints them, or by a
  Markdown cell that comes next and does not begin with a heading, behind a code cell whose last
  line is `plots.<name>(...)`, ends in `.figure`, or calls `.show()`.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from notebook_parts import fill_notebook, fill_tables

from qwqlab.course import Notebook, list_exercises, read_course
from qwqlab.course.exercise import KINDS
from qwqlab.errors import SettingError
from qwqlab.paths import CHECKOUT

MOST_LINES = 15
LINK = re.compile(r"(!?)\[([^\]]*)\]\(\s*<?([^)\s>]+)>?[^)]*\)")
HTML_IMAGE = re.compile(r"<img\b[^>]*>", re.IGNORECASE)

Cell = dict[str, Any]


def find_faults(path: Path) -> Iterator[str]:
    """The rules of form that a notebook breaks, a sentence each."""
    text = path.read_text(encoding="utf-8")
    notebook = json.loads(text)
    cells: list[Cell] = notebook["cells"]
    if tidy(text) != text:
        yield "it keeps what a run left behind: run `python tests/check_notebooks.py --fix`"
    if notebook["metadata"].get("kernelspec", {}).get("name") != "python3":
        yield "the kernel is not python3"
    headings = [
        number for number, cell in enumerate(cells) for _ in re.findall(r"(?m)^# ", _prose(cell))
    ]
    if headings != [0]:
        yield f"it has {len(headings)} H1, and needs one, in its first cell"
    ids = [cell.get("id") for cell in cells]
    if None in ids or len(set(ids)) < len(ids):
        yield "a cell has no id, or the id of another"
    for number, cell in enumerate(cells, start=1):
        faults = _check_code(cells, number - 1) if cell["cell_type"] == "code" else ()
        for fault in (*faults, *_check_links(_prose(cell), path.parent)):
            yield f"cell {number} {fault}"


def find_stale_parts(course: Sequence[Notebook], place: int) -> Iterator[str]:
    """What of a notebook's generated parts is not as it should be, a sentence each."""
    path = course[place].path
    content = json.loads(path.read_text(encoding="utf-8"))
    lacking = set(KINDS) - {each.kind for each in list_exercises(path.stem)}
    if lacking:
        yield f"it has no exercise of the kind {min(lacking)}"
    try:
        fill_notebook(content, course, place)
    except ValueError as fault:
        yield str(fault)
    else:
        if tidy(json.dumps(content)) != tidy(path.read_text(encoding="utf-8")):
            yield "a generated part is not up to date: run `python tests/check_notebooks.py --fix`"


def _source(cell: Cell) -> str:
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def _prose(cell: Cell) -> str:
    """The text of a Markdown cell without what it quotes as code."""
    if cell["cell_type"] != "markdown":
        return ""
    text = re.sub(r"(?ms)^(```|~~~).*?^\1", "", _source(cell))
    return re.sub(r"`[^`\n]*`", "", text)


def _check_code(cells: Sequence[Cell], index: int) -> Iterator[str]:
    cell = cells[index]
    lines = len(_source(cell).splitlines())
    if lines > MOST_LINES:
        yield f"has {lines} lines, and at most {MOST_LINES} are easy to read"
    following = _source(cells[index + 1]).strip() if index + 1 < len(cells) else ""
    is_prose = bool(following) and cells[index + 1]["cell_type"] == "markdown"
    if shows_bare_figure(_source(cell)) and not (is_prose and not following.startswith("#")):
        yield "shows a figure with no words for it: use show_figure(...), or describe it next"


def shows_bare_figure(source: str) -> bool:
    """Whether a cell ends in a figure that does not come with its own words.

    >>> shows_bare_figure("plots.draw_chain(steps)"), shows_bare_figure("show_figure(plot)")
    (True, False)
    """
    lines = [line for line in source.splitlines() if not line.lstrip().startswith(("%", "!"))]
    try:
        body = ast.parse("\n".join(lines)).body
    except SyntaxError:
        return False
    last = body[-1].value if body and isinstance(body[-1], ast.Expr) else None
    if isinstance(last, ast.Attribute):
        return last.attr == "figure"
    if isinstance(last, ast.Call) and isinstance(last.func, ast.Attribute):
        owner = last.func.value
        return last.func.attr == "show" or (isinstance(owner, ast.Name) and owner.id == "plots")
    return False


def _check_links(text: str, folder: Path) -> Iterator[str]:
    for mark, label, target in LINK.findall(text):
        if mark and not label.strip():
            yield f"shows {target} with no text in its place"
        if re.match(r"[a-z][a-z0-9+.-]*:|#", target, re.IGNORECASE):
            continue
        if not (folder / unquote(target.split("#")[0])).exists():
            yield f"links to {target}, which does not exist"
    for image in HTML_IMAGE.findall(text):
        if not re.search(r"""\balt\s*=\s*(["'])\s*[^"'\s]""", image, re.IGNORECASE):
            yield f"shows an image with no text in its place: {image}"


def tidy(text: str) -> str:
    """A notebook without outputs, counts, widget state and timings, as Jupyter would write it."""
    notebook = json.loads(text)
    notebook["metadata"].pop("widgets", None)
    for cell in notebook["cells"]:
        cell["metadata"].pop("execution", None)
        cell["source"] = _source(cell).splitlines(keepends=True)
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def fix(course: Sequence[Notebook], readme: Path) -> None:
    """Write every notebook without what a run left, and every generated part anew."""
    for place, each in enumerate(course):
        content = json.loads(each.path.read_text(encoding="utf-8"))
        fill_notebook(content, course, place)
        each.path.write_text(tidy(json.dumps(content)), encoding="utf-8")
    text = readme.read_text(encoding="utf-8")
    readme.write_text(fill_tables(text, course, "notebooks/"), encoding="utf-8")


def main() -> int:
    """Print a line for each fault; 0 when there is none."""
    readme = CHECKOUT / "README.md"
    try:
        course = read_course()
        if "--fix" in sys.argv[1:]:
            fix(course, readme)
    except (SettingError, ValueError) as error:
        print(error)
        return 1
    faults = [
        f"{each.path.name}: {fault}"
        for place, each in enumerate(course)
        for fault in (*find_faults(each.path), *find_stale_parts(course, place))
    ]
    text = readme.read_text(encoding="utf-8")
    if fill_tables(text, course, "notebooks/") != text:
        faults.append("README.md: its table is not up to date: run this with --fix")
    print("\n".join(faults) or f"{len(course)} notebooks are in good form.")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
