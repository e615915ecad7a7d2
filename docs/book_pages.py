"""Notebooks that were run, as pages: nothing on them asks for a kernel or for the network."""

from __future__ import annotations

import html
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
import plotly
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html
from pygments.formatters import HtmlFormatter

from qwqlab.course import Notebook, draw_table

PLOTLY = "application/vnd.plotly.v1+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"

NOTE = "<p><em>A panel. Its controls work in JupyterLab; this is what it showed.</em></p>"
ABOUT = (
    "Each notebook as it came out of a run on the machine that made these pages, its exercises "
    "as a reader finds them. Nothing here asks for a kernel or a network. The costs are those of "
    "running it."
)
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<link rel="stylesheet" href="book.css">
<script src="plotly.min.js"></script>
<nav aria-label="Contents">{nav}</nav>
<main>
{body}
</main>
</html>
"""

CSS = """
:root { color-scheme: light dark; --ink: #222; --ground: #fff; --soft: #f4f4f4; --edge: #ccc;
  --link: #0a58a8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e4e4; --ground: #181818; --soft: #242424; --edge: #555; --link: #7db8f0; } }
body { margin: 0; font: 16px/1.5 system-ui, sans-serif;
  color: var(--ink); background: var(--ground); }
a { color: var(--link); }
nav { padding: 0.6em 1.5em; border-bottom: 1px solid var(--edge); }
nav a { margin-right: 1em; }
main { max-width: 1100px; margin: 0 auto; padding: 1em 1.5em 4em; }
pre, code { font: 14px/1.45 ui-monospace, monospace; }
pre { overflow-x: auto; }
.input_area, .highlight pre { background: var(--soft); }
.input_area pre { padding: 0.6em 0.8em; margin: 0.8em 0 0; border-left: 3px solid var(--edge); }
.prompt, .anchor-link { display: none; }
.output_area pre { padding: 0 0.8em; white-space: pre-wrap; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { border: 1px solid var(--edge); padding: 0.3em 0.6em; text-align: left; }
blockquote { border-left: 4px solid #E69F00; margin-left: 0; padding-left: 1em; }
.figure { background: #fff; color: #222; }
"""


def write_pages(course: Sequence[Notebook], runs: Mapping[str, Path], folder: Path) -> None:
    """Write a page for each notebook, its contents page, and what they share, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    script = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    shutil.copyfile(script, folder / "plotly.min.js")
    light = HtmlFormatter(style="default").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    css = f"{CSS}\n{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n"
    (folder / "book.css").write_text(css + ".highlight { background: var(--soft); }\n")
    nav = '<a href="index.html">Contents</a>' + "".join(
        f'<a href="{each.path.stem}.html">{each.number}</a>' for each in course
    )
    for each in course:
        body = _write_body(runs[each.path.stem])
        page = PAGE.format(title=html.escape(each.title), nav=nav, body=body)
        (folder / f"{each.path.stem}.html").write_text(page, encoding="utf-8")
    intro = f"# qwqlab, read without running\n\n{ABOUT}\n\n{draw_table(course)}"
    body = _mend_links(markdown2html(intro))
    page = PAGE.format(title="qwqlab", nav=nav, body=body)
    (folder / "index.html").write_text(page, encoding="utf-8")


def _write_body(path: Path) -> str:
    notebook = nbformat.read(path, as_version=4)
    widgets = notebook.metadata.get("widgets", {}).get(STATE, {}).get("state", {})
    notebook.cells = [cell for cell in notebook.cells if "track" not in cell.metadata]
    for place, cell in enumerate(notebook.cells):
        for number, output in enumerate(cell.get("outputs", [])):
            data = output.get("data", {})
            name = f"figure-{place}-{number}"
            if PLOTLY in data:
                output["data"] = {"text/html": draw_figure(data[PLOTLY], name)}
            elif WIDGET in data:
                parts = show_widget(data[WIDGET]["model_id"], widgets, name)
                output["data"] = {"text/html": NOTE + "".join(parts)}
    body, _ = HTMLExporter(template_name="basic").from_notebook_node(notebook)
    return _mend_links(body)


def _mend_links(body: str) -> str:
    """Links from notebook to notebook lead from page to page; those to files of the checkout are
    plain text here."""
    body = re.sub(r'href="(\d\d_\w+)\.ipynb(#[^"]*)?"', r'href="\1.html\2"', body)
    return re.sub(r'(?s)<a [^>]*href="\.\./[^"]*"[^>]*>(.*?)</a>', r"\1", body)


def draw_figure(figure: Mapping[str, Any], name: str) -> str:
    """A Plotly figure, {"data": ..., "layout": ...}, as an element and the script that draws it."""
    title = (figure.get("layout", {}).get("title") or {}).get("text") or "A figure"
    layout = {**figure.get("layout", {}), "autosize": True}
    layout.pop("width", None)
    values = json.dumps([figure.get("data", []), layout, {"responsive": True}])
    values = values.replace("</", "<\\/")
    label = html.escape(html.unescape(re.sub("<[^>]*>", " ", title)))
    return (
        f'<div id="{name}" class="figure" role="img" aria-label="{label}"></div>'
        f'<script>Plotly.newPlot("{name}", ...{values})</script>'
    )


def show_widget(model_id: str, widgets: Mapping[str, Any], name: str) -> Iterator[str]:
    """What a widget and those in it show: figures drawn, HTML as it stands, no controls."""
    widget = widgets.get(model_id)
    if widget is None:
        return
    state = widget["state"]
    if "figure" in state:
        yield draw_figure(state["figure"], f"{name}-{model_id[:8]}")
    elif widget["model_name"] in ("HTMLModel", "HTMLMathModel"):
        yield f"<div>{state.get('value', '')}</div>"
    for child in state.get("children") or []:
        yield from show_widget(str(child).removeprefix("IPY_MODEL_"), widgets, name)
