"""How soon the microscope shows what a slider asks: in the kernel, and in a real browser.

    python benchmarks/redraw.py [--moves 40]

Opens a notebook with a microscope in JupyterLab, as the browser tests do. In the kernel a move is
the computation and the update of the figure on the page; in the browser it is the time from a key
to a chart that differs. Prints medians, and what share of the time allowed they take.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[1]
sys.path.append(str(CHECKOUT / "tests"))
from lab_page import DRAWN, NO_BROWSER, LabPage, find_chromium, open_notebook  # noqa: E402

KERNEL_LIMIT, BROWSER_LIMIT = 0.100, 0.400  # seconds
SHOW = """
from qwqlab.experiments import read_prompts
from qwqlab.models import fetch
from qwqlab.sampling import PRESETS, Engine, Request
from qwqlab.widgets import Microscope
request = Request(read_prompts("code")[0], PRESETS["article_with_penalties"], n_predict=120)
microscope = Microscope(Engine(fetch("smollm2-135m")), request)
microscope
"""
TIME = """
import statistics, time
slider, taken = microscope.controls.numbers["temp"], []
for i in range({moves}):
    started = time.perf_counter()
    slider.value = 0.3 + 0.01 * (i % 100)
    taken.append(time.perf_counter() - started)
print(statistics.median(taken))
"""
OUTPUT = """() => window.jupyterapp.shell.currentWidget.content.widgets.at(-1)
  .model.outputs.toJSON().map(output => output.text).join("")"""
BARS = """() => document.querySelector(".qwqlab-microscope .js-plotly-plot")
  .data.slice(0, 3).map(trace => Array.from(trace.y))"""


def main() -> None:
    """Time both and print them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--moves", type=int, default=40)
    args = parser.parse_args()
    browser = find_chromium()
    if browser is None:
        raise SystemExit(NO_BROWSER)
    cells = [make_cell(SHOW), make_cell(TIME.format(moves=args.moves))]
    with (
        tempfile.TemporaryDirectory() as folder,
        open_notebook(cells, Path(folder), browser) as lab,
    ):
        lab.run_all()
        tell("in the kernel", float(lab.page.evaluate(OUTPUT)), KERNEL_LIMIT)
        tell("in the browser", time_keys(lab, args.moves), BROWSER_LIMIT)


def make_cell(source: str) -> dict[str, Any]:
    """A code cell."""
    return {"cell_type": "code", "source": source.strip(), "metadata": {}, "outputs": [],
            "execution_count": None}  # fmt: skip


def time_keys(lab: LabPage, moves: int) -> float:
    """The median of the seconds from an arrow key on a slider to a chart that differs."""
    lab.page.locator(".qwqlab-microscope").scroll_into_view_if_needed()
    lab.page.wait_for_function(DRAWN)
    lab.page.locator(".qwqlab-temp .noUi-handle").focus()
    keys = ["ArrowRight", "ArrowLeft"] * (moves // 2)  # to and fro: the slider has an end
    return statistics.median(
        lab.changes(lambda: lab.page.evaluate(BARS), partial(lab.page.keyboard.press, key))
        for key in keys
    )


def tell(where: str, seconds: float, limit: float) -> None:
    """One line of the table."""
    print(f"{seconds / limit:6.3f} of {limit * 1000:.0f} ms {where} ({seconds * 1000:.0f} ms)")


if __name__ == "__main__":
    main()
