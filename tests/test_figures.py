"""What holds of every figure: words, a table, a name, and cues that need no full sight."""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from figures import FIGURES
from vision import SIGHTS, contrast, distance, read_color, to_lab

from qwqlab import plots
from qwqlab.plots import Drawing, drawing, run_text, show_rows
from qwqlab.sampling import Engine

PALETTE = (drawing.BLUE, drawing.VERMILLION, drawing.GREEN, drawing.PURPLE, drawing.BROWN)
APART = 15  # CIELAB units between any two colours of the palette, for every kind of colour sight


@pytest.fixture(scope="module", params=FIGURES)
def figure(request: pytest.FixtureRequest) -> Drawing:
    return FIGURES[request.param](request.getfixturevalue("engine"))


def test_every_function_that_draws_is_held_to_this() -> None:
    assert set(FIGURES) == {name for name in dir(plots) if name.startswith("draw_")}


def test_a_figure_has_a_title_a_sentence_with_numbers_and_a_table(figure: Drawing) -> None:
    assert figure.title
    assert re.search(r"\d", figure.summary) and figure.summary.endswith(".")
    assert len(figure.table) and not figure.table.isna().all(axis=None)
    for axis in (figure.figure.layout.xaxis, figure.figure.layout.yaxis):
        named = axis.title.text or axis.ticktext  # categories name themselves
        assert named or figure.title.startswith(("Output error", "No override", "Flip"))


def test_a_figure_is_named_on_a_page_and_its_table_has_headers(figure: Drawing) -> None:
    page = figure.figure_html() + figure.words_html()
    (name,) = re.findall(r'<div role="figure" aria-label="([^"]*)">', page)
    assert html.unescape(name) == f"{figure.title}. {figure.summary.replace('`', '')}"
    headers = re.findall(r"<th[^e][^>]*>", page[page.rindex("<table") :])
    assert len(headers) == len(figure.table.columns)
    assert all('scope="col"' in header for header in headers)


def test_a_name_is_never_markup() -> None:
    evil = plots.draw_losses({'"><script>alert(1)</script>': [2, 1]})
    assert "<script>alert" not in evil.words_html() + evil.figure_html().split("</div>")[0][:500]


def test_rows_of_words_have_headers_where_there_are_words() -> None:
    page = show_rows([("`a`", "<b>"), (1, 2.5)], ["", "what"])._repr_html_()
    assert page.count('<th scope="col"') == 1 and "<code>a</code>" in page
    assert "&lt;b&gt;" in page and ">2.5</td>" in page


def test_distances_and_contrasts_are_those_of_the_books() -> None:
    # CIELAB of sRGB's red under D65, and WCAG's own extremes.
    assert to_lab(read_color("#FF0000")) == pytest.approx([53.24, 80.09, 67.20], abs=0.02)
    assert contrast("#000000", "white") == pytest.approx(21)
    assert contrast("#767676", "white") == pytest.approx(4.54, abs=0.01)
    assert distance("#0000FF", "#FF0000", "grey") < 30 < distance("#0000FF", "#FF0000")


@pytest.mark.parametrize("sight", [sight for sight in SIGHTS if sight != "grey"])
def test_the_palette_is_told_apart_by_every_kind_of_colour_sight(sight: str) -> None:
    for one, other in itertools.combinations(PALETTE, 2):
        assert distance(one, other, sight) > APART, (one, other)


def test_lines_and_words_stand_out_from_their_ground() -> None:
    for color in (*PALETTE, drawing.GREY):
        assert contrast(color, "white") >= 3, color
    assert contrast(drawing.INK, "white") >= 4.5
    assert contrast(drawing.GREY, "white") >= 4.5
    # What stands behind words, and words in the colours of JupyterLab's two themes.
    assert contrast("white", drawing.RUST) >= 4.5 and drawing.RUST in run_text.BREAK


def test_a_figure_has_no_colour_but_those_that_are_checked(figure: Drawing) -> None:
    checked = {*PALETTE, drawing.INK, drawing.GREY, "white"}
    for trace in figure.figure.data:
        assert set(colors_of(trace)) <= checked, trace.name
        assert trace.type == "heatmap" or trace.textfont.color in (None, drawing.INK)
    look = figure.figure.layout.template.layout
    assert look.font.color == drawing.INK
    assert look.paper_bgcolor == look.plot_bgcolor == "white"


def test_no_two_traces_are_told_apart_by_colour_alone(figure: Drawing) -> None:
    shown = [trace for trace in figure.figure.data if trace.showlegend is not False]
    for one, other in itertools.combinations(shown, 2):
        if set(colors_of(one)) != set(colors_of(other)):
            # A suspect's two rates stand in rows of their own, which say which is which.
            assert cues_of(one) != cues_of(other) or not set(one.y) & set(other.y), one.name


def test_thirty_runs_have_thirty_lines() -> None:
    figure = plots.draw_losses({f"run {n}": [1.0] for n in range(30)}).figure
    assert len({(trace.line.color, trace.line.dash) for trace in figure.data}) == 30


def test_the_heat_map_is_ordered_in_every_sight(engine: Engine) -> None:
    (heat,) = FIGURES["draw_heat"](engine).figure.data
    scale = [color for _, color in heat.colorscale]
    for sight in SIGHTS:
        steps = [np.array(SIGHTS[sight]) @ read_color(color) for color in scale]
        light = [float(to_lab(np.clip(step, 0, 1))[0]) for step in steps]
        assert light == sorted(light, reverse=True)


def colors_of(trace: Any) -> Iterator[str]:
    """The colours that a trace is drawn in."""
    for part in ("marker", "line", "error_x", "error_y"):
        color = trace[part].color if part in trace else None
        if color is not None:
            yield color


def cues_of(trace: Any) -> tuple[Any, ...]:
    """What tells a trace apart besides its colour."""
    if trace.type == "bar":
        return "bar", trace.marker.pattern.shape, trace.marker.line.width
    return trace.mode, trace.marker.symbol, trace.line.dash
