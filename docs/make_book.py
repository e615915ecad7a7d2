"""Run every notebook once, and make of it a book that needs no kernel and no network.

    python docs/make_book.py write 2   # copies to run, with both tracks of every exercise
    python docs/make_book.py write 2 short   # the same, with fewer samples in the long cells
    python -m pytest --nbmake --overwrite @build/book/order
    python docs/make_book.py bind      # pages from what came out

`make book` does the three. What a notebook's contract asks for and this machine lacks leaves it
out; of the others the longest runs first. In a copy each exercise is tried as the reader finds it,
with the wrong answers that we know of, and with its solution; the cells that do so are left out of
the pages.

A long cell names in its metadata what a short run changes in it, as `{"short": {old: new}}`.
`make test` makes a short book: every check of the notebooks holds in it too, with fewer samples.

Two run at a time, where memory has room for both, and share the processor's threads. With 1 each
has the machine alone, and what it took is written down too.
"""

from __future__ import annotations

import copy
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from qwqlab import paths, preflight
from qwqlab.course import RIGHT, UNANSWERED, Exercise, Notebook, list_exercises, read_course
from qwqlab.llamacpp import THREADS, find_nvidia_gpu

sys.path.append(str(Path(__file__).parent))
from book_pages import write_pages

BOOK = Path(os.environ.get("QWQLAB_BOOK") or paths.build_dir() / "book")
RUN = BOOK / "run"
Cell = dict[str, Any]

AT_ONCE = ["--dist", "load", "--maxschedchunk", "1", "-n"]  # pytest's, before how many
BEFORE = """\
import contextlib as _contextlib
import os as _os
import resource as _resource
import sys as _sys
import threading as _threading
import time as _time

import psutil as _psutil

from qwqlab import paths as _paths

_os.environ.update({threads})
_os.environ.pop("CI", None)  # as on a reader's machine: some libraries ask fewer hosts in CI
_asked = set()


def _note(event, values):
    if event == "socket.getaddrinfo":
        _asked.add(str(values[0]))
    elif event == "socket.connect" and isinstance(values[1], tuple):
        _asked.add(str(values[1][0]))


_sys.addaudithook(_note)


# A child's own peak would not do: at its start it counts as large as the kernel then is.
_peak = [0]


def _watch_memory():
    kernel = _psutil.Process()
    while True:
        used = 0
        for each in (kernel, *kernel.children(recursive=True)):
            with _contextlib.suppress(_psutil.Error):
                used += each.memory_info().rss
        _peak[0] = max(_peak[0], used)
        _time.sleep(0.5)


_threading.Thread(target=_watch_memory, daemon=True).start()


def _measure_disk():
    files = (path for path in _paths.build_dir().rglob("*") if path.is_file())
    return sum(path.lstat().st_size for path in files) / 1e9


_disk_before = _measure_disk()"""
AFTER = """\
import json as _json

_own = _resource.getrusage(_resource.RUSAGE_SELF).ru_maxrss * 1024
_memory = max(_own, _peak[0]) / 1e9
_disk = _measure_disk() - _disk_before
print(_json.dumps({"memory_gb": _memory, "disk_gb": _disk, "asked": sorted(_asked)}))"""


def write_runs(at_once: int, short: bool) -> int:
    """Write the copies, in place of those of an earlier time, and the order to run them in."""
    shutil.rmtree(BOOK, ignore_errors=True)
    RUN.mkdir(parents=True)
    course = read_course()
    lacks = {each: list_missing(each) for each in course}
    largest = sorted(each.contract.memory_gb for each in course)[-at_once:]
    # A quarter is for the system, and for whoever works here meanwhile.
    if at_once > 1 and sum(largest) > 0.75 * preflight.count_memory() / 1e9:
        print(f"One notebook at a time: {at_once} can take {sum(largest):g} GB of memory.")
        at_once = 1
    for notebook in course:
        content = json.loads(notebook.path.read_text(encoding="utf-8"))
        exercises = {each.name: each for each in list_exercises(notebook.path.stem)}
        if short:
            shorten(content["cells"])
        content["cells"] = list(_add_tracks(content["cells"], exercises, at_once))
        (RUN / notebook.path.name).write_text(json.dumps(content), encoding="utf-8")
        if lacks[notebook]:
            print(f"{notebook.path.name} is not run: it needs {', '.join(lacks[notebook])}.")
    ready = [each for each in course if not lacks[each]]
    # Of two that take as long to the minute, the later one as a rule takes longer.
    ready.sort(key=lambda each: (each.contract.minutes, each.path.name), reverse=True)
    order = [str(RUN / each.path.name) for each in ready]
    if at_once > 1:
        # Each process is given two at first: with the longest goes the shortest.
        order = [*AT_ONCE, str(at_once), *order[:1], *order[-1:], *order[1:-1]]
    (BOOK / "order").write_text("\n".join(order) + "\n", encoding="utf-8")
    # In continuous integration everything must be there.
    return 1 if os.environ.get("CI") and len(ready) < len(course) else 0


def list_missing(notebook: Notebook) -> list[str]:
    """Return what this machine is missing for a notebook, a phrase each; empty if it can run."""
    contract, missing = notebook.contract, []
    memory = preflight.count_memory() / 1e9
    if memory < contract.memory_gb:
        missing.append(f"{contract.memory_gb:g} GB of memory (this machine has {memory:.1f})")
    disk = preflight.check_disk(paths.build_dir(), contract.disk_gb)
    if not disk.ok:
        missing.append(f"{contract.disk_gb:g} GB of free disk ({disk.detail})")
    if contract.gpu == "needed" and find_nvidia_gpu() is None:
        missing.append("a GPU")
    if contract.network == "needed" and not os.environ.get("QWQLAB_NETWORK"):
        missing.append("a network (say that there is one with QWQLAB_NETWORK=1)")
    return missing


def shorten(cells: list[Cell]) -> None:
    """Replace in each cell what its metadata says that a short run changes."""
    for cell in cells:
        source = "".join(cell["source"])
        for old, new in cell["metadata"].get("short", {}).items():
            if source.count(old) != 1:
                raise ValueError(
                    f"cell {cell['id']} has {old!r} {source.count(old)} times, not once"
                )
            source = source.replace(old, new)
        cell["source"] = source


def _add_tracks(cells: list[Cell], exercises: dict[str, Exercise], at_once: int) -> Iterator[Cell]:
    share = str(max(1, preflight.count_cpus() // at_once))
    threads = dict.fromkeys((THREADS, "OMP_NUM_THREADS"), share) if at_once > 1 else {}
    yield _make_cell("before", BEFORE.replace("{threads}", repr(threads)), {})
    for cell in cells:
        if "exercise-check" not in cell["metadata"].get("tags", []):
            yield cell
            continue
        exercise = exercises[cell["metadata"]["exercise"]]
        yield _expect(cell, UNANSWERED)
        for number, (answer, hint) in enumerate(exercise.wrong):
            yield _make_cell(f"{exercise.name}-wrong-{number}", answer, {})
            yield _expect(cell, hint, f"{exercise.name}-hint-{number}")
        yield _make_cell(f"{exercise.name}-answer", exercise.solution, {})
        yield _expect(cell, RIGHT, f"{exercise.name}-right")
    yield _make_cell("after", AFTER, {})


def _make_cell(name: str, source: str, track: dict[str, Any]) -> Cell:
    return {
        "cell_type": "code",
        "id": name.replace("_", "-")[:64],
        "metadata": {"track": track},
        "source": source,
        "outputs": [],
        "execution_count": None,
    }


def _expect(check: Cell, words: str, name: str = "") -> Cell:
    """A check cell that notes what it has to say; the reader's own, where no name is given."""
    expected = copy.deepcopy(check)
    if name:
        expected["id"] = name.replace("_", "-")[:64]
        expected["metadata"]["track"] = {}
    expected["metadata"]["expect"] = words
    return expected


def measure(notebook: Notebook) -> dict[str, float]:
    """What the run took: minutes of the notebook's own cells, GB of memory and of disk."""
    content = json.loads((RUN / notebook.path.name).read_text(encoding="utf-8"))
    own = [cell for cell in content["cells"] if "track" not in cell["metadata"]]
    seconds = sum(map(_time_cell, own))
    (printed,) = content["cells"][-1]["outputs"]
    found = json.loads("".join(printed["text"]))
    sizes = {name: round(found[name], 2) for name in ("memory_gb", "disk_gb")}
    return {"minutes": round(seconds / 60, 2), **sizes}


def _time_cell(cell: Cell) -> float:
    times = cell["metadata"].get("execution", {})
    if "iopub.execute_input" not in times or "shell.execute_reply" not in times:
        return 0.0
    begin, end = (
        datetime.fromisoformat(times[name].replace("Z", "+00:00"))
        for name in ("iopub.execute_input", "shell.execute_reply")
    )
    return (end - begin).total_seconds()


def bind() -> int:
    """Write the pages, and `measured.json` where each notebook ran alone; say where they are."""
    ran = (BOOK / "order").read_text(encoding="utf-8").splitlines()
    course = [each for each in read_course() if str(RUN / each.path.name) in ran]
    runs = {each.path.stem: RUN / each.path.name for each in course}
    write_pages(course, runs, BOOK)
    if AT_ONCE[0] not in ran:
        measured = {
            "machine": f"{platform.system()} {platform.machine()}",
            "notebooks": {each.path.stem: measure(each) for each in course},
        }
        text = json.dumps(measured, indent=1) + "\n"
        (BOOK / "measured.json").write_text(text, encoding="utf-8")
    print(f"The book begins at {BOOK / 'index.html'}.")
    return 0


if __name__ == "__main__":
    sys.exit(bind() if sys.argv[1] == "bind" else write_runs(int(sys.argv[2]), "short" in sys.argv))
