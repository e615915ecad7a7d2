"""Every panel and figure in JupyterLab, light and dark: axe-core's rules, and the keyboard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.base import AXE_FILE_PATH
from figures import FIGURES
from lab_page import DRAWN, LabPage, open_notebook
from playwright.sync_api import CDPSession, Locator, expect

from qwqlab.paths import CHECKOUT

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CELLS = [
    f"""
import sys, time
sys.path.insert(0, {str(CHECKOUT / "tests")!r})
from figures import FIGURES, PROMPT
from types import SimpleNamespace
from qwqlab import catalog, paths
from qwqlab.engine import Engine
from qwqlab.grade import grade_text
from qwqlab.widgets import (
    GradePanel, JobPanel, LossPanel, Microscope, RunProgress, SideBySide, ThinkPanel)
from qwqlab.plots import show_grade, show_rows, show_run
from qwqlab.records import Request
from qwqlab.sampling import PRESETS
from qwqlab.sweep import sweep
from qwqlab.training import Step
engine = Engine(paths.models_dir() / catalog.EMBEDDED.filename)
article, strong = PRESETS["article"], PRESETS["official"].with_(repeat_penalty=1.5)""",
    "Microscope(engine, Request(PROMPT, strong, 1, 30))",
    """
both = SideBySide(engine, PROMPT, strong, article, n_predict=60)
both.start(); both.wait()
both""",
    """
think = ThinkPanel(engine, "Why?", n_predict=20)
think.start(); think.wait()
think""",
    """
grader = GradePanel()
grader.choice.value = "syntax"
grader.grade(); grader.wait()
grader""",
    """
def count(on_step, stop):
    while not stop():
        time.sleep(0.05)
        on_step(3, 9)

job = JobPanel("Count", count)
job""",
    """
def train(on_step, stop):
    losses = [2.0, 1.5, 1.2]
    for n, loss in enumerate(losses, 1):
        on_step(n, 3, Step(n, loss, 0.1, 10, 1))
    return SimpleNamespace(losses=losses)

LossPanel("Train", train)""",
    "runs = sweep(engine, [Request(PROMPT, strong, n, 9) for n in (1, 2)], on_run=RunProgress())",
    "show_run(runs[0], engine, breaking=2, title='a run')",
    "show_rows([('`top_k`', 40)], ['setting', 'value'])",
    "for draw in FIGURES.values(): display(draw(engine))",
]
WIDE: Any = {"width": 1500, "height": 1000}
OUTPUTS = ".jp-OutputArea-output"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
AXE = """async ([within, rules]) => {
  const found = await axe.run({include: [within]}, {
    runOnly: rules, resultTypes: ["violations"],
  });
  return found.violations.flatMap(rule => rule.nodes.map(node =>
    `${rule.id}: ${node.html.slice(0, 160)} ${node.failureSummary}`));
}"""
# What a person can do something with, or scroll, in the outputs of a cell.
CONTROLS = """cell => {
  const controls = "button, input, select, textarea, summary, a[href], [tabindex='0'], " +
    "[contenteditable=true]";
  return [...cell.querySelectorAll(controls)].filter(element =>
    element.closest(".jp-OutputArea-output") && !element.disabled &&
    element.checkVisibility({visibilityProperty: true}));
}"""
LOOK = """element => {
  const look = getComputedStyle(element);
  return [look.outline, look.boxShadow, look.borderColor].join(" ");
}"""
# Those that stick out of the output they are in.
CUT_OFF = f"""controls => controls.filter(control => {{
  const output = control.closest("{OUTPUTS}").getBoundingClientRect();
  const scrolled = control.closest("details [role=group]");
  return !scrolled && control.getBoundingClientRect().right > output.right + 1;
}}).map(control => control.outerHTML.slice(0, 160))"""


@pytest.fixture(scope="module")
def lab(chromium: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabPage]:
    """A notebook that shows each panel and each figure once."""
    cells: list[dict[str, Any]] = [
        {"cell_type": "code", "id": f"cell-{n}", "metadata": {}, "source": source.strip(),
         "outputs": [], "execution_count": None}
        for n, source in enumerate(CELLS)
    ]  # fmt: skip
    with open_notebook(cells, tmp_path_factory.mktemp("lab"), chromium) as lab:
        lab.run_all()
        lab.page.wait_for_function(DRAWN)
        expect(lab.page.locator(".jp-RenderedPlotly .main-svg").first).to_be_visible()
        lab.page.evaluate(AXE_FILE_PATH.read_text(encoding="utf-8"))
        yield lab


def switch_theme(lab: LabPage, name: str) -> None:
    lab.page.evaluate(
        "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", name
    )
    light = "true" if name.endswith("Light") else "false"
    expect(lab.page.locator("body")).to_have_attribute("data-jp-theme-light", light)


@pytest.fixture(params=range(1, len(CELLS)), ids=lambda n: CELLS[n].strip().splitlines()[0])
def cell(lab: LabPage, request: pytest.FixtureRequest) -> Locator:
    """A cell that shows something, on the screen and active, in command mode."""
    lab.page.evaluate(
        """n => {
          const notebook = window.jupyterapp.shell.currentWidget.content;
          [notebook.mode, notebook.activeCellIndex] = ["command", n];
          notebook.activeCell.node.focus();
        }""",
        request.param,
    )
    return lab.page.locator(".jp-Notebook .jp-Cell").nth(request.param)


@pytest.fixture
def whole(lab: LabPage) -> Iterator[LabPage]:
    """The page with all of the notebook in sight: axe judges the colours of nothing else.

    JupyterLab's body has no height; axe takes for hidden what lies in it.
    """
    lab.page.set_viewport_size({"width": WIDE["width"], "height": 20_000})
    lab.page.evaluate("() => { document.body.style.height = '100vh'; }")
    lab.page.wait_for_function("""() => {
      const notebook = document.querySelector(".jp-Notebook .jp-WindowedPanel-outer");
      const cells = notebook.querySelector(".jp-WindowedPanel-viewport");
      notebook.scrollTop = 0;
      return cells.getBoundingClientRect().height < notebook.clientHeight;
    }""")
    yield lab
    lab.page.set_viewport_size(WIDE)


@pytest.mark.parametrize("theme", ["JupyterLab Dark", "JupyterLab Light"])
def test_axe_finds_nothing_in_what_the_lab_shows(whole: LabPage, theme: str) -> None:
    switch_theme(whole, theme)
    for details in whole.page.locator(f"{OUTPUTS} details").all():
        if details.get_attribute("open") is None:
            details.locator("summary").press("Enter")
    assert whole.page.evaluate(AXE, [[OUTPUTS], RULES]) == []


def test_axe_would_find_pale_words_and_a_slider_without_a_name_in_every_output(
    whole: LabPage,
) -> None:
    outputs = whole.page.locator(f"{OUTPUTS}:not(.jp-RenderedPlotly)")
    outputs.evaluate_all("""all => all.forEach(output => {
      const bad = output.appendChild(document.createElement("p"));
      bad.className = "bad";
      bad.innerHTML = "<b style='color:#ccc;background:white'>pale</b>" +
        "<i role='slider' aria-valuenow='1' tabindex='0'></i>";
    })""")
    found = whole.page.evaluate(AXE, [[OUTPUTS], RULES])
    whole.page.locator(".bad").evaluate_all("all => all.forEach(bad => bad.remove())")
    rules = Counter(line.split(":")[0] for line in found)
    assert rules == {rule: outputs.count() for rule in ("aria-input-field-name", "color-contrast")}


def test_tab_reaches_every_control_which_has_a_name_and_shows_its_focus(
    lab: LabPage, cell: Locator
) -> None:
    page, before = lab.page, None
    tree = page.context.new_cdp_session(page)
    tree.send("Accessibility.enable")
    left = cell.evaluate_handle(CONTROLS)
    wanted = left.evaluate("controls => controls.length")
    for _ in range(wanted + 20):
        page.keyboard.press("Tab")
        at = page.evaluate_handle("document.activeElement")
        if before is not None:
            assert before[1] != before[0].evaluate(LOOK), describe(before[0])
            before = None
        if left.evaluate("(all, at) => all.includes(at)", at):
            assert name_focused(tree), describe(at)
            before = at, at.evaluate(LOOK)
            left = left.evaluate_handle("(all, at) => all.filter(one => one !== at)", at)
        if not left.evaluate("left => left.length"):
            break
    assert left.evaluate("left => left.map(one => one.outerHTML.slice(0, 160))") == []


def test_no_control_is_cut_off_in_a_narrow_window(lab: LabPage, cell: Locator) -> None:
    lab.page.set_viewport_size({"width": 1024, "height": 768})
    expect(cell).to_be_visible()
    found = cell.evaluate_handle(CONTROLS).evaluate(CUT_OFF)
    lab.page.set_viewport_size(WIDE)
    assert found == []


def test_the_keyboard_opens_switches_moves_and_types(lab: LabPage) -> None:
    panel = lab.page.locator(".qwqlab-microscope")
    slider = panel.get_by_role("slider", name="repeat_last_n")
    expect(slider).to_have_count(0)
    panel.get_by_role("button", name="show more numbers").press("Enter")
    expect(slider).to_be_visible()
    box = panel.get_by_role("checkbox", name="use dry")
    box.press("Space")
    expect(panel.get_by_role("checkbox", name="use dry")).not_to_be_checked()
    panel.get_by_role("button", name="move dry down").press("Enter")
    expect(panel.locator(".qwqlab-order li").nth(2)).to_have_attribute("data-name", "dry")
    number = panel.get_by_role("textbox", name="temp, as a number")
    number.press("Control+a")
    lab.page.keyboard.type("1.25")
    lab.page.keyboard.press("Enter")
    expect(panel.get_by_role("slider", name="temp", exact=True)).to_have_attribute(
        "aria-valuetext", "1.25"
    )
    panel.get_by_role("slider", name="step").press("End")
    expect(panel.get_by_role("figure", name="Step 29")).to_be_visible()


def test_a_bar_a_status_line_and_every_figure_say_what_they_are(lab: LabPage) -> None:
    page = lab.page.locator(".jp-Notebook")
    bar = page.get_by_role("progressbar", name="Count")
    expect(bar).to_have_attribute("aria-valuenow", "33")
    page.locator(".qwqlab-job").first.get_by_role("button", name="Stop").press("Enter")
    told = page.get_by_role("status").filter(has_text="stopped at 3 of 9; nothing is lost")
    expect(told).to_have_count(1)
    # A panel's figures, and those that stand alone.
    expect(page.get_by_role("figure")).to_have_count(2 + len(FIGURES))
    name = "Q4_0 takes 34 % of F16's bytes, with 7.8 % more perplexity. The lowest perplexity is"
    expect(page.get_by_role("figure", name=name)).to_have_count(1)
    assert lab.outside == []


def name_focused(tree: CDPSession) -> str:
    """The name that the browser tells assistive technology of what has the focus."""
    found = tree.send("Runtime.evaluate", {"expression": "document.activeElement"})
    place = {"objectId": found["result"]["objectId"], "fetchRelatives": False}
    (node,) = tree.send("Accessibility.getPartialAXTree", place)["nodes"]
    return str(node.get("name", {}).get("value", "")).strip()


def describe(element: Any) -> str:
    return str(element.evaluate("element => element.outerHTML.slice(0, 160)"))
