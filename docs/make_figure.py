"""Draw the README's central figure from the experiment's results, with no network.

    qwqlab reproduce --json docs/trade_off.json
    python docs/make_figure.py docs/trade_off.json docs/trade_off.png

A headless Chromium draws it, the one that the browser tests use; the ending of the picture's name
says the format: png (twice the resolution, for print) or svg. It prints the sentence that belongs
under the picture.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

from playwright.sync_api import sync_playwright

from qwqlab.drawing import WIDTH, Drawing
from qwqlab.plots import draw_trade_off

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from lab_page import CHROMIUM, NO_BROWSER, find_chromium

SNAP = "options => Plotly.toImage(document.querySelector('.js-plotly-plot'), options)"


def main() -> int:
    """Read the results, draw, and print the picture's sentence."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path, help="what `qwqlab reproduce --json` wrote")
    parser.add_argument("picture", type=Path, help="a .png or .svg to write")
    parser.add_argument("--against", choices=["loops", "runaways"], default="loops")
    args = parser.parse_args()
    browser = find_chromium()
    if browser is None:
        print(NO_BROWSER, file=sys.stderr)
        return 1
    arms = json.loads(args.results.read_text(encoding="utf-8"))["arms"]
    drawing = draw_trade_off([SimpleNamespace(**arm) for arm in arms], args.against)
    args.picture.write_bytes(render(drawing, args.picture.suffix.lstrip("."), browser))
    print(drawing.summary)
    return 0


def render(drawing: Drawing, kind: str, browser: Path) -> bytes:
    """A drawing's figure as the bytes of a png or an svg."""
    options = {
        "format": kind,
        "width": WIDTH,
        "height": drawing.figure.layout.height,
        "scale": 2 if kind == "png" else 1,
    }
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=CHROMIUM)
        page = chromium.new_page()
        page.set_content(drawing.figure.to_html(include_plotlyjs=True))
        page.wait_for_selector(".js-plotly-plot .main-svg")
        head, data = page.evaluate(SNAP, options).split(",", 1)
        chromium.close()
    return base64.b64decode(data) if head.endswith("base64") else unquote(data).encode()


if __name__ == "__main__":
    sys.exit(main())
