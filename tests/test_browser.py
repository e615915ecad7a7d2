"""Every panel and figure in JupyterLab, offline: what mouse and keyboard do, and axe-core's rules.

One notebook shows each of them once. nbmake runs the lab's own notebooks.
"""

from __future__ import annotations

import json
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.base import AXE_FILE_PATH
from figures import FIGURES
from lab_page import DRAWN, LabPage, open_notebook
from playwright.sync_api import CDPSession, Locator, expect

from qwqlab.models import read_template
from qwqlab.paths import CHECKOUT
from qwqlab.plots.stages import FULL
from qwqlab.sampling import ARTICLE_ORDER, DEFAULT_ORDER
from qwqlab.widgets.think import OWN

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NOTEBOOK = json.loads((CHECKOUT / "notebooks" / "03_sampler_lab.ipynb").read_text("utf-8"))
SIDE = "".join(next(cell["source"] for cell in NOTEBOOK["cells"] if cell["id"] == "side"))
CELLS = [
    f"""
import sys, time
sys.path.insert(0, {str(CHECKOUT / "tests")!r})
from figures import FIGURES, PROMPT
from types import SimpleNamespace
from qwqlab import paths
from qwqlab.models import EMBEDDED
from qwqlab.sampling import Engine
from qwqlab.grader import grade_text
from qwqlab.widgets import (
    GradePanel, JobPanel, LossPanel, Microscope, RunProgress, SideBySide, ThinkPanel)
from qwqlab.plots import show_grade, show_rows, show_run
from qwqlab.sampling import Request
from qwqlab.sampling import PRESETS
from qwqlab.experiments import sweep
from qwqlab.tuning import Step
engine = Engine(paths.models_dir() / EMBEDDED.filename)
article, strong = PRESETS["article"], PRESETS["official"].with_(repeat_penalty=1.5)""",
    "Microscope(engine, Request(PROMPT, strong, 1, 30))",
    SIDE
    + """
# Run again, neither comes to an end before Stop is pressed.
for side in duel.sides:
    side.controls.set(side.controls.sampling.with_(ignore_eos=True))
duel.limit.value = 1500
duel.sides[0].edit.click()""",
    """
think = ThinkPanel(engine, "Why?", n_predict=20)
think.start(); think.wait()
think.n_predict = 400
think""",
    """
grader = GradePanel()
grader.choice.value = "syntax"
grader.start(); grader.wait()
grader""",
    """
stopped = []

def count(on_step, stop):
    while not stopped:
        time.sleep(0.05)
        on_step(3, 9)
        stopped.extend([True] * stop())
    return 9

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
# What a person can use or scroll in the outputs of a cell, or of all cells.
CONTROLS = """within => {
  const controls = "button, input, select, textarea, summary, a[href], [tabindex='0'], " +
    "[contenteditable=true]";
  return [...within.querySelectorAll(controls)].filter(element =>
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
CHART = """() => {
  const chart = document.querySelector(".qwqlab-microscope .js-plotly-plot");
  const bars = chart.data.slice(0, 3).flatMap(trace =>
    Array.from(trace.y, (y, i) => [Math.floor(-trace.base[i]), y]));
  return {rows: chart._fullLayout.yaxis.ticktext, title: chart._fullLayout.title.text, bars,
          width: chart._fullLayout.width, room: chart.clientWidth};
}"""
Chart = Callable[[], dict[str, Any]]


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
    # A theme is laid out anew for all of the notebook, which a busy machine needs seconds for.
    body = lab.page.locator("body")
    expect(body).to_have_attribute("data-jp-theme-light", light, timeout=60_000)


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


@pytest.mark.nightly  # a test of the test above
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


def test_no_control_is_cut_off_in_a_narrow_window(lab: LabPage) -> None:
    lab.page.set_viewport_size({"width": 1024, "height": 768})
    lab.page.wait_for_function("() => window.innerWidth === 1024")
    controls = lab.page.locator(".jp-Notebook").evaluate_handle(CONTROLS)
    count, cut_off = controls.evaluate("controls => controls.length"), controls.evaluate(CUT_OFF)
    for _ in range(40):  # a busy machine lays the page out later
        if not cut_off:
            break
        lab.page.wait_for_timeout(250)
        cut_off = controls.evaluate(CUT_OFF)
    lab.page.set_viewport_size(WIDE)
    assert count > 100 and cut_off == []


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
    page.locator(".qwqlab-job").first.get_by_role("button", name="Go on").press("Enter")
    expect(page.get_by_role("status").filter(has_text="Done in")).not_to_have_count(0)
    # A panel's figures, and those that stand alone.
    expect(page.get_by_role("figure")).to_have_count(2 + len(FIGURES))
    name = "Q4_0 takes 34 % of F16's bytes, with 7.8 % more perplexity. The lowest perplexity is"
    expect(page.get_by_role("figure", name=name)).to_have_count(1)


@pytest.fixture
def chart(lab: LabPage) -> Chart:
    """A function that reads the microscope's chart from the page."""
    lab.page.locator(".qwqlab-microscope").scroll_into_view_if_needed()
    lab.page.wait_for_function(DRAWN)
    return lambda: lab.page.evaluate(CHART)


def choose(lab: LabPage, chart: Chart, preset: str) -> None:
    panel = lab.page.locator(".qwqlab-microscope")
    select = panel.get_by_role("combobox", name="preset")
    if select.input_value() != preset:
        lab.changes(chart, lambda: select.select_option(preset))


def names_on(lab: LabPage) -> list[str]:
    rows = lab.page.locator(".qwqlab-microscope .qwqlab-order li:not(.off)")
    return [row.get_attribute("data-name") or "" for row in rows.all()]


def row(lab: LabPage, name: str) -> Any:
    return lab.page.locator(f".qwqlab-microscope .qwqlab-order li[data-name={name}]")


def test_each_row_of_the_chart_is_a_distribution(lab: LabPage, chart: Chart) -> None:
    choose(lab, chart, "llama.cpp")
    now = chart()
    assert now["rows"] == ["raw", *DEFAULT_ORDER, "dist"]
    for number in range(len(now["rows"])):
        total = sum((y / FULL) ** 2 for at, y in now["bars"] if at == number)
        assert total == pytest.approx(1, abs=1e-3)


def test_a_slider_moved_by_an_arrow_key_redraws_the_chart(
    lab: LabPage, chart: Chart, record_property: Callable[[str, object], None]
) -> None:
    choose(lab, chart, "article_with_penalties")
    lab.page.locator(".qwqlab-microscope .qwqlab-temp .noUi-handle").focus()
    taken = [
        lab.changes(lambda: chart()["bars"], lambda: lab.page.keyboard.press("ArrowRight"))
        for _ in range(9)
    ]
    # `changes` fails where nothing was redrawn; how long it took is noted, not judged.
    record_property("seconds_to_redraw", statistics.median(taken))
    assert len(taken) == 9


def test_alt_and_an_arrow_key_move_a_sampler_and_keep_the_focus_on_it(
    lab: LabPage, chart: Chart
) -> None:
    choose(lab, chart, "llama.cpp")
    row(lab, "penalties").focus()
    lab.changes(lambda: chart()["rows"], lambda: lab.page.keyboard.press("Alt+ArrowDown"))
    assert chart()["rows"] == ["raw", "dry", "penalties", *DEFAULT_ORDER[2:], "dist"]
    assert lab.page.evaluate("() => document.activeElement.dataset.name") == "penalties"
    told = lab.page.locator(".qwqlab-order-live").first.inner_text()
    assert "penalties is on, at place 2 of 9" in told


def test_a_sampler_is_dragged_to_another_place(lab: LabPage, chart: Chart) -> None:
    choose(lab, chart, "llama.cpp")
    lab.changes(
        lambda: chart()["rows"], lambda: row(lab, "temperature").drag_to(row(lab, "penalties"))
    )
    assert chart()["rows"] == ["raw", "temperature", *DEFAULT_ORDER[:-1], "dist"]


def test_a_sampler_is_switched_off_and_the_warning_comes(lab: LabPage, chart: Chart) -> None:
    choose(lab, chart, "article_with_penalties")
    box = row(lab, "penalties").locator("input")
    lab.changes(lambda: chart()["rows"], box.click)
    assert "penalties" not in chart()["rows"]
    warning = lab.page.locator(".qwqlab-microscope").get_by_text("has no effect")
    assert "penalties is not in the order" in warning.inner_text()


def test_a_preset_sets_the_order(lab: LabPage, chart: Chart) -> None:
    choose(lab, chart, "llama.cpp")
    choose(lab, chart, "article")
    assert chart()["rows"] == ["raw", *ARTICLE_ORDER, "dist"]
    assert names_on(lab) == list(ARTICLE_ORDER)


def test_the_chart_takes_the_width_that_there_is(lab: LabPage, chart: Chart) -> None:
    assert chart()["width"] == chart()["room"]
    toggle = "() => window.jupyterapp.commands.execute('application:toggle-left-area')"
    lab.changes(lambda: chart()["width"], lambda: lab.page.evaluate(toggle))
    assert chart()["width"] == chart()["room"]


def test_notebook_03_shows_a_loop_and_beside_it_the_same_run_without(lab: LabPage) -> None:
    lab.page.locator(".qwqlab-side-by-side .qwqlab-stream").first.scroll_into_view_if_needed()
    looping, fixed = lab.page.locator(".qwqlab-side-by-side .qwqlab-stream").all()
    expect(looping.get_by_text("a loop begins", exact=True)).to_be_in_viewport()
    expect(fixed).to_contain_text("DRY")
    expect(fixed).not_to_contain_text("loop begins")


def test_stop_ends_both_runs_and_keeps_what_they_wrote(
    lab: LabPage, record_property: Callable[[str, object], None]
) -> None:
    panel = lab.page.locator(".qwqlab-side-by-side")
    panel.scroll_into_view_if_needed()
    stream = panel.locator(".qwqlab-stream").first
    lab.changes(stream.text_content, panel.get_by_role("button", name="Run").click)
    expect(stream).to_contain_text(re.compile(r"\S"))  # the text of the last run is gone by now
    stopped = panel.get_by_text("stopped on request", exact=False)
    taken = lab.changes(stopped.count, panel.get_by_role("button", name="Stop").click)
    record_property("seconds_to_stop", taken)
    # Each column says it above its text and among its measures.
    expect(stopped).to_have_count(4)


def test_a_reader_picks_a_program_and_sees_it_judged(lab: LabPage) -> None:
    panel = lab.page.locator(".qwqlab-grader")
    panel.locator("select").select_option("red_pipes")
    field = panel.locator(".qwqlab-answer textarea")
    expect(field).to_have_value(re.compile("The pipes are red"))
    panel.get_by_role("button", name="Grade").press("Enter")
    result = panel.locator(".qwqlab-grade")
    expect(result).to_contain_text("FAIL: missed of the eight: 7", timeout=60_000)
    expect(result.locator("img").first).to_be_visible()
    assert result.locator("img").evaluate_all("all => all.every(one => one.naturalWidth > 100)")


@pytest.fixture
def think(lab: LabPage) -> Locator:
    """The panel of templates, with the template that it starts from."""
    panel = lab.page.locator(".qwqlab-think")
    panel.scroll_into_view_if_needed()
    panel.locator(".qwqlab-template textarea").fill(read_template("with-think"))
    expect(panel.get_by_text("It equals with-think.")).to_be_visible()
    return panel


def prompt_of(panel: Locator) -> str:
    return panel.locator(".qwqlab-prompt [role=group]").text_content() or ""


def test_the_keyboard_alone_edits_a_template_and_changes_the_prompt(
    lab: LabPage, think: Locator
) -> None:
    before = prompt_of(think)
    assert before.endswith("<|im_start|>assistant\n<think>\n")
    think.locator(".qwqlab-template textarea").focus()
    lab.page.keyboard.press("Control+Home")
    lab.page.keyboard.type("Note:")
    expect(think.locator(".qwqlab-prompt [role=group]")).to_contain_text("Note:<|im_start|>")
    assert prompt_of(think) == f"Note:{before}"


def test_a_broken_tag_is_told_and_mended(think: Locator) -> None:
    field = think.locator(".qwqlab-template textarea")
    field.fill("{% if %}")
    expect(think.locator(".qwqlab-status")).to_contain_text("is no Jinja (line 1)")
    field.fill("{{ messages[0].content }}")
    expect(think.locator(".qwqlab-status")).to_have_text("")
    expect(think.locator(".qwqlab-prompt [role=group]")).to_have_text("Why?")


def test_another_template_is_chosen(think: Locator) -> None:
    think.get_by_role("combobox", name="start from").select_option(OWN)
    expect(think.locator(".qwqlab-prompt [role=group]")).to_contain_text("named SmolLM")


def test_generate_writes_and_stop_ends_it(think: Locator) -> None:
    think.get_by_role("button", name="Generate").click()
    thinking = think.get_by_role("group", name="thinking")
    expect(thinking).not_to_be_empty()
    stop = think.get_by_role("button", name="Stop")
    if stop.is_enabled():
        stop.click()
    expect(think.get_by_text("The prompt opened the thinking", exact=False)).to_be_visible()
    expect(think.get_by_role("button", name="Generate")).to_be_enabled()


def test_the_page_asked_for_nothing_outside_this_machine(lab: LabPage) -> None:
    assert lab.outside == []


def name_focused(tree: CDPSession) -> str:
    """The name that the browser tells assistive technology of what has the focus."""
    found = tree.send("Runtime.evaluate", {"expression": "document.activeElement"})
    place = {"objectId": found["result"]["objectId"], "fetchRelatives": False}
    (node,) = tree.send("Accessibility.getPartialAXTree", place)["nodes"]
    return str(node.get("name", {}).get("value", "")).strip()


def describe(element: Any) -> str:
    return str(element.evaluate("element => element.outerHTML.slice(0, 160)"))
