"""Notebook 03 as a reader meets it: in JupyterLab, with a mouse and a keyboard, offline."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_page import DRAWN, LabPage, open_notebook
from playwright.sync_api import expect

from qwqlab.paths import CHECKOUT
from qwqlab.plots.stages import FULL
from qwqlab.sampling import ARTICLE_ORDER
from qwqlab.settings import DEFAULT_ORDER

pytestmark = [pytest.mark.browser, pytest.mark.slow]

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
    """The notebook, run to its end but for the experiment, which nbmake runs."""
    path = CHECKOUT / "notebooks" / "03_sampler_lab.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    kept = [cell for cell in cells if "experiment" not in cell["metadata"].get("tags", [])]
    with open_notebook(kept, tmp_path_factory.mktemp("lab"), chromium) as lab:
        lab.run_all()
        yield lab


@pytest.fixture
def chart(lab: LabPage) -> Chart:
    """A function that reads the microscope's chart from the page."""
    lab.page.locator(".qwqlab-microscope").scroll_into_view_if_needed()
    lab.page.wait_for_function(DRAWN)
    return lambda: lab.page.evaluate(CHART)


def choose(lab: LabPage, chart: Chart, preset: str) -> None:
    select = lab.page.locator(".qwqlab-microscope select").first
    if select.input_value() != preset:
        lab.changes(chart, lambda: select.select_option(preset))


def names_on(lab: LabPage) -> list[str]:
    rows = lab.page.locator(".qwqlab-order li:not(.off)")
    return [row.get_attribute("data-name") or "" for row in rows.all()]


def row(lab: LabPage, name: str) -> Any:
    return lab.page.locator(f".qwqlab-order li[data-name={name}]")


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
    lab.page.locator(".qwqlab-temp .noUi-handle").focus()
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


def test_stop_ends_both_runs_and_keeps_what_they_wrote(
    lab: LabPage, record_property: Callable[[str, object], None]
) -> None:
    panel = lab.page.locator(".qwqlab-side-by-side")
    panel.scroll_into_view_if_needed()
    stream = panel.locator(".qwqlab-stream").first
    lab.changes(stream.text_content, panel.get_by_role("button", name="Run").click)
    stopped = panel.get_by_text("stopped on request", exact=False)
    taken = lab.changes(stopped.count, panel.get_by_role("button", name="Stop").click)
    record_property("seconds_to_stop", taken)
    # Each column says it above its text and among its measures.
    expect(stopped).to_have_count(4)


def test_the_page_asked_for_nothing_outside_this_machine(lab: LabPage) -> None:
    assert lab.outside == []
