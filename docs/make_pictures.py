"""Draw the README's pictures, with no network: `make pictures`.

The central ones are drawn from data/evidence, which `qwqlab reproduce --json` writes. The others
come from the last
`make book`: from each cell whose metadata names a "picture", its figure or the texts of its panel.
A headless Chromium draws, the one that the browser tests use. The words of each picture go into
docs/pictures/README.md.
"""

from __future__ import annotations

import base64
import html
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from playwright.sync_api import Page, sync_playwright

from qwqlab import paths
from qwqlab.experiments import list_evidence
from qwqlab.plots import WIDTH, draw_arms

sys.path.append(str(Path(__file__).parents[1] / "tests"))
sys.path.append(str(Path(__file__).parent))
from book_pages import PLOTLY, STATE, WIDGET, show_widget
from lab_page import CHROMIUM, NO_BROWSER, find_chromium

PICTURES = Path(__file__).parent / "pictures"
RUNS = paths.build_dir() / "book" / "run"
SNAP = "options => Plotly.toImage(document.querySelector('.js-plotly-plot'), options)"
BESIDE = """<style>
  body { margin: 0; padding: 12px; display: grid; grid-template-columns: 1fr 1fr; gap: 16px;
    font: 15px/1.4 sans-serif; color: #222; background: white; }
</style>"""
HEAD = """# Pictures

Made by `make pictures` from data/evidence and the last `make book`: change those, not these.
"""


@dataclass(frozen=True)
class Picture:
    """What to draw, its file's name, and the sentence that stands for it.

    figure: a Plotly figure, or the HTML of a page.
    """

    name: str
    figure: Any
    words: str


def main() -> int:
    """Draw every picture that there is a figure for, and write their words."""
    browser = find_chromium()
    if browser is None:
        print(NO_BROWSER, file=sys.stderr)
        return 1
    pictures = [read_evidence(), *read_book()]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=CHROMIUM)
        page = chromium.new_page(offline=True, device_scale_factor=2)
        for picture in pictures:
            (PICTURES / f"{picture.name}.png").write_bytes(draw(picture, page))
        chromium.close()
    parts = [f"## {picture.name}.png\n\n{picture.words}\n" for picture in pictures]
    (PICTURES / "README.md").write_text("\n".join([HEAD, *parts]), encoding="utf-8")
    print(f"{len(pictures)} pictures are in {PICTURES}.")
    return 0


def read_evidence() -> Picture:
    """The experiment's figure, from what was measured on models that write programs."""
    found = {each.title: each.arms for each in list_evidence("code")}
    drawing = draw_arms(found, ("valid", "right", "loops"))
    return Picture("arms", drawing.figure, drawing.summary)


def read_book() -> Iterator[Picture]:
    """What the cells that name a picture show, as the last run of the notebooks left it."""
    for path in sorted(RUNS.glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            shown = [output.get("data", {}) for output in cell.get("outputs", [])]
            figures = [data[PLOTLY] for data in shown if PLOTLY in data]
            panels = [data[WIDGET]["model_id"] for data in shown if WIDGET in data]
            if "picture" in cell["metadata"] and figures:
                texts = "".join("".join(data.get("text/html", "")) for data in shown)
                words = re.search(r"(?s)<p>(.*?)</p>", texts)
                figure = go.Figure(figures[0]["data"], figures[0]["layout"])
                yield Picture(
                    cell["metadata"]["picture"], figure, read_plain(words[1] if words else "")
                )
            elif "picture" in cell["metadata"] and panels:
                yield read_texts(cell["metadata"]["picture"], panels[0], notebook)


def read_texts(name: str, panel: str, notebook: dict[str, Any]) -> Picture:
    """The two runs of a SideBySide, without the seconds that they took on this machine."""
    widgets = notebook["metadata"]["widgets"][STATE]["state"]
    runs = [
        re.sub(r" in [\d.]+ s;", ";", part)
        for part in show_widget(panel, widgets, name)
        if "text of the run" in part
    ]
    heads = [read_plain(run.split('<div tabindex="0"')[0]) for run in runs]
    return Picture(name, BESIDE + "".join(runs), " ".join(heads))


def read_plain(marked: str) -> str:
    """The words of a piece of HTML."""
    return html.unescape(re.sub("<[^>]*>", "", marked))


def draw(picture: Picture, page: Page) -> bytes:
    """A picture as a png, at twice the resolution, for print."""
    if isinstance(picture.figure, str):
        page.set_viewport_size({"width": WIDTH, "height": 100})
        page.set_content(picture.figure)
        return page.screenshot(full_page=True)
    page.set_content(picture.figure.to_html(include_plotlyjs=True))
    page.wait_for_selector(".js-plotly-plot .main-svg")
    height = picture.figure.layout.height or 500
    options = {"format": "png", "width": WIDTH, "height": height, "scale": 2}
    return base64.b64decode(page.evaluate(SNAP, options).split(",", 1)[1])


if __name__ == "__main__":
    sys.exit(main())
