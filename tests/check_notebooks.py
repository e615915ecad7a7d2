"""Check the form of every notebook, as `make check` does; `--fix` removes what a run left behind.

The rules:
- nothing of a run is kept (outputs, counts, widget state, timings), and lines are written as
  Jupyter writes them, one by one;
- exactly one H1, in the first cell; the kernel is python3; every cell has an id of its own;
- a code cell has at most 15 lines;
- local links lead to something, and the last cell links to the previous and the next notebook;
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

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
MOST_LINES = 15
LINK = re.compile(r"(!?)\[([^\]]*)\]\(\s*<?([^)\s>]+)>?[^)]*\)")
HTML_IMAGE = re.compile(r"<img\b[^>]*>", re.IGNORECASE)

Cell = dict[str, Any]


def find_faults(path: Path, order: Sequence[str]) -> Iterator[str]:
    """The rules that a notebook breaks, a sentence each; order: all notebooks' names in order."""
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
    place = order.index(path.name)
    last = {target for _, _, target in LINK.findall(_prose(cells[-1]))} if cells else set()
    for neighbour in [*order[max(place - 1, 0) : place], *order[place + 1 : place + 2]]:
        if neighbour not in last:
            yield f"its last cell does not link to {neighbour}"


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


def main() -> int:
    """Print a line for each fault; 0 when there is none."""
    paths = sorted(NOTEBOOKS.glob("*.ipynb"))
    if "--fix" in sys.argv[1:]:
        for path in paths:
            path.write_text(tidy(path.read_text(encoding="utf-8")), encoding="utf-8")
    order = [path.name for path in paths]
    faults = [f"{path.name}: {fault}" for path in paths for fault in find_faults(path, order)]
    print("\n".join(faults) or f"{len(paths)} notebooks are in good form.")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
