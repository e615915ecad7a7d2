"""The figures: what they hold is what the numbers say, and what a model wrote stays text."""

from __future__ import annotations

import html
import itertools
import subprocess
import sys

import numpy as np
import plotly.graph_objects as go
import pytest

from qwqlab.errors import SettingError
from qwqlab.experiments import ArmResult
from qwqlab.models import RungResult
from qwqlab.plots import (
    decode_steps,
    draw_arms,
    draw_ladder,
    draw_stages,
    lay_out,
    name_token,
    show_run,
)
from qwqlab.plots.drawing import escape_text, label_points, percent
from qwqlab.sampling import (
    PRESETS,
    Engine,
    Probe,
    Request,
    Run,
    Sampling,
    StepView,
)


def make_arm(name: str, right: int = 0, loops: int = 0, n: int = 20) -> ArmResult:
    """An arm of n programs, of which the first ones are right, and 10 long runs."""
    return ArmResult(
        name=name,
        sampling=PRESETS["official"],
        outcomes={
            "valid": "1" * n,
            "right": "1" * right + "0" * (n - right),
            "loops": "1" * loops + "0" * (10 - loops),
        },
        prompts={"code": tuple(range(n)), "long": tuple(range(10))},
        texts={"code": ("0" * 8,) * n, "long": ("0" * 8,) * 10},
        thinking=0, thinking_loops=0, unclosed=0, answer_loops=2,
        escape_rate=0.0, seq_rep_4=0.1, mean_tokens=99.0,
    )  # fmt: skip


def make_rung(name: str, n_bytes: int, perplexity: float, speed: float) -> RungResult:
    return RungResult(name, "", n_bytes, 4.5, None, perplexity, 0.1, (), speed, 500.0)


ARMS = (
    make_arm("no penalty", 14, 4),
    make_arm("strong", 0, 0),
    make_arm("article, 1.1", 16, 2),
    make_arm("article, 1.5", 16, 2),
)
OTHERS = (make_arm("strong", 5, 0), make_arm("no penalty", 20, 0))  # fewer, in another order
RUNGS = (
    make_rung("Q8_0", 145_000_000, 20.5, 150.0),
    make_rung("Q4_0", 92_000_000, 22.0, 200.0),
    make_rung("F16", 271_000_000, 20.4, 110.0),
)
BROKEN = PRESETS["official"].with_(repeat_penalty=1.5)


@pytest.fixture(scope="module")
def probe(engine: Engine, code_prompt: str) -> Probe:
    return Probe.of(engine, Request(code_prompt, BROKEN, 1, 40))


@pytest.fixture(scope="module")
def escaped(probe: Probe) -> StepView:
    """A step whose token came from outside the raw nucleus."""
    return probe.step(probe.run.escapes[0])


def test_every_bar_is_the_probability_that_the_probe_gives(
    engine: Engine, escaped: StepView
) -> None:
    grid = lay_out(escaped, engine, top=12)
    stages = (escaped.raw, *escaped.stages)
    for row, stage in enumerate(stages):
        for column, token in enumerate(grid.tokens):
            found = stage.find(token)
            assert np.isnan(grid.probs[row, column]) == (found is None)
            if found is not None:
                assert grid.probs[row, column] == pytest.approx(found[1])
        shown = np.nansum(grid.probs[row])
        assert shown + grid.others[row] == pytest.approx(1)
    assert grid.left == tuple(len(stage.ids) for stage in stages)


def test_a_cross_stands_at_the_stage_that_removed_a_token(
    engine: Engine, escaped: StepView
) -> None:
    grid = lay_out(escaped, engine, top=12)
    for column, token in enumerate(grid.tokens):
        rows = [grid.rows[row] for row in np.flatnonzero(grid.removed[:, column])]
        by = escaped.removed_by(token)
        assert rows == ([] if by is None else [by])


def test_the_drawn_token_has_a_column_even_far_down_the_raw_distribution(
    engine: Engine, probe: Probe
) -> None:
    ranks = np.array(probe.run.ranks)
    view = probe.step(int(ranks.argmax()))
    for top in (1, 2, 5):
        grid = lay_out(view, engine, top)
        assert grid.tokens[grid.drawn] == view.token
        assert len(set(grid.tokens)) == len(grid.tokens)


def test_the_chart_holds_the_grid(engine: Engine, escaped: StepView) -> None:
    drawing = draw_stages(escaped, engine, top=12)
    grid = lay_out(escaped, engine, top=12)
    assert drawing.figure.layout.yaxis.ticktext == grid.rows
    kept, drawn, others = drawing.figure.data[:3]
    assert len(kept.x) + len(drawn.x) == np.count_nonzero(~np.isnan(grid.probs))
    assert len(others.x) == len(grid.rows)
    assert set(drawn.x) == {grid.drawn}
    assert list(drawing.table["token"]) == list(grid.tokens)


def test_the_summary_names_the_stage_that_changed_most(engine: Engine, escaped: StepView) -> None:
    assert "`penalties` changes the distribution most" in lay_out(escaped, engine).summary


def test_a_chain_of_another_shape_can_be_drawn_too(engine: Engine, probe: Probe) -> None:
    greedy = draw_stages(probe.step(3, Sampling(temp=0)), engine)
    assert "leaves 1 of" in greedy.summary
    mirostat = draw_stages(probe.step(3, Sampling(mirostat=2)), engine)
    assert mirostat.figure.layout.yaxis.ticktext == ("raw", "temperature", "mirostat_v2")


def test_the_central_figure_shows_each_arm_of_each_model_with_its_intervals() -> None:
    figure = draw_arms({"small": ARMS, "large": OTHERS}).figure
    assert [trace.name for trace in figure.data] == ["small", "small", "large", "large"]
    right, loops = figure.data[:2]
    assert list(right.x) == [0.7, 0.0, 0.8, 0.8] and list(loops.x) == [0.4, 0.0, 0.2, 0.2]
    for place, arm in enumerate(ARMS):
        low, high = arm.rate("right").interval
        assert right.x[place] - right.error_x.arrayminus[place] == pytest.approx(low)
        assert right.x[place] + right.error_x.array[place] == pytest.approx(high)
    rows = {round(y) for trace in figure.data for y in trace.y}
    assert rows == {0, 1, 2, 3} and figure.layout.yaxis.ticktext[1] == "strong"
    assert len({trace.marker.symbol for trace in figure.data}) == 2
    other = figure.data[2]
    assert [round(y) for y in other.y] == [1, 0] and list(other.x) == [0.25, 1.0]
    # Two models share a row and never a place.
    assert not {*figure.data[0].y} & {*figure.data[2].y}


def test_the_central_figures_words_are_computed() -> None:
    drawing = draw_arms({"small": ARMS, "large": OTHERS})
    assert drawing.title == (
        "strong: right programs from 70 % to 0 % (small) and 100 % to 25 % (large)"
    )
    assert "small, right programs: 70 % (48 % to 90 %) in 'no penalty'; fewer in strong" in (
        drawing.summary
    )
    assert "small, loops: 40 % (10 % to 70 %) in 'no penalty'; fewer in strong" in drawing.summary
    assert "large, loops: 0 % (0 % to 28 %) in 'no penalty'; no arm that differs" in drawing.summary
    assert "article" not in drawing.summary.split(". ")[0]  # 14 and 16 of 20 can't be told apart


def test_a_measure_that_no_arm_has_is_left_out_and_nothing_to_draw_is_said() -> None:
    assert len(draw_arms({"small": ARMS}, ("right", "copies")).figure.data) == 1
    with pytest.raises(SettingError, match="nothing to draw"):
        draw_arms({"small": ARMS}, ("copies",))


def test_the_ladder_shows_size_against_perplexity_and_speed() -> None:
    drawing = draw_ladder(RUNGS)
    perplexity, generated, _read = drawing.figure.data
    assert list(perplexity.x) == [92.0, 145.0, 271.0]
    assert list(perplexity.y) == [22.0, 20.5, 20.4]
    assert list(generated.y) == [200.0, 150.0, 110.0]
    assert drawing.title == "Q4_0 takes 34 % of F16's bytes, with 7.8 % more perplexity"


def test_names_cover_neither_points_nor_each_other_where_there_is_room() -> None:
    figure, size = go.Figure(), (600, 400)
    points = {(100.0, 100.0): "first label", (104.0, 100.0): "second", (100.0, 108.0): "third"}
    label_points(figure, points, (0, 600), (0, 400), size)
    boxes = [
        (x + note.ax, -y + note.ay, 7 * len(name) / 2)
        for ((x, y), name), note in zip(points.items(), figure.layout.annotations, strict=True)
    ]
    for (x, y, half), (other_x, other_y, other_half) in itertools.combinations(boxes, 2):
        assert abs(x - other_x) >= half + other_half or abs(y - other_y) >= 16
    for (x, y, half), (px, py) in itertools.product(boxes, points):
        assert abs(x - px) >= half or abs(y + py) >= 8


def test_a_run_is_shown_whole_with_its_escapes_marked(engine: Engine, probe: Probe) -> None:
    run = probe.run
    marked = show_run(run, engine)
    assert marked.html.count("border-bottom:2px") == len(run.escapes)
    assert "".join(decode_steps(run, engine)) == run.text
    for letter in set(run.text) - set("«»\n"):
        assert marked.text.count(letter) >= run.text.count(letter)
    assert f"{len(run.escapes)} escapes" in marked.text


def test_a_loop_and_a_breaking_token_are_marked_once(engine: Engine, probe: Probe) -> None:
    cycle = engine.model.tokenize_all(
        [" and so it went on and on, day after day."], parse_special=False
    )[0]
    tokens = (*engine.model.tokenize_all(["It began well!"], parse_special=False)[0], *cycle * 12)
    text = b"".join(engine.model.piece(token) for token in tokens).decode()
    run = Run(Request("p"), 1, tokens, text, "length", (0,) * len(tokens), (), 0.1)
    marked = show_run(run, engine, breaking=2)
    assert marked.html.count("a loop begins</span>") == 1
    assert marked.html.count("font-weight:bold") == 1
    assert f"a loop begins at token {len(tokens) - 12 * len(cycle)} (12 times)" in marked.text
    shaded = marked.html.split("a loop begins</span>")[1]
    assert shaded.startswith("<span style=") and shaded.count("day after day.") == 12
    assert "a loop begins" not in show_run(probe.run, engine).html


def test_what_a_model_wrote_is_never_markup(engine: Engine) -> None:
    evil = "<img src=x onerror=alert(1)><script>alert('x')</script>&amp;"
    tokens = tuple(engine.model.tokenize_all([evil], parse_special=False)[0])
    run = Run(Request("p"), 1, tokens, evil, "length", (9,) * len(tokens), (1, 3), 0.1)
    shown = show_run(run, engine, title="<b>mine</b>").html
    assert "<img" not in shown and "<script" not in shown and "<b>" not in shown
    bare = shown.replace("</span>", "")
    while "<span" in bare:
        start = bare.index("<span")
        bare = bare[:start] + bare[bare.index(">", start) + 1 :]
    assert evil in html.unescape(bare)


def test_a_character_of_several_tokens_is_shown_when_it_is_complete(engine: Engine) -> None:
    text = "naïve 🙂 日本"
    tokens = tuple(engine.model.tokenize_all([text], parse_special=False)[0])
    run = Run(Request("p"), 1, tokens, text, "end", (0,) * len(tokens), (), 0.1)
    assert "".join(decode_steps(run, engine)) == text
    assert text in show_run(run, engine).html


def test_a_run_without_tokens_can_be_shown(engine: Engine) -> None:
    run = Run(Request("p"), 1, (), "", "stopped", (), (), 0.0)
    assert "stopped on request" in show_run(run, engine).text


def test_a_token_that_looks_like_markup_stays_a_label() -> None:
    assert escape_text("<b>$x$</b>") == "&lt;b&gt;&#36;x&#36;&lt;/b&gt;"
    assert name_token("\u202ea\x00") == "\\u202ea\\u0000"


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0 %"), (1, "100 %"), (0.05, "5.0 %"), (0.0004, "0.04 %")]
)
def test_percent_keeps_two_figures(share: float, text: str) -> None:
    assert percent(share) == text


def test_a_drawing_is_text_outside_jupyter_and_a_page_that_needs_no_network() -> None:
    drawing = draw_arms({"model": ARMS})
    text = str(drawing)
    assert drawing.summary in text and "article, 1.5" in text
    page = drawing.figure_html() + drawing.words_html()
    assert drawing.summary in html.unescape(page)
    assert '<script src="' not in page and "<details>" in page


def test_a_notebook_gets_the_figure_and_its_words_and_plotly_imports_no_nbformat() -> None:
    """nbformat brings jsonschema's formats, which take seconds before the first figure."""
    code = """if True:
        import sys
        from IPython.core.interactiveshell import InteractiveShell
        from IPython.display import display
        from IPython.utils.capture import capture_output
        InteractiveShell.instance()
        from qwqlab.plots import draw_losses
        with capture_output() as captured:
            display(draw_losses({"a run": [2.0, float("nan"), 1.0]}))
        figure, words = (output.data for output in captured.outputs)
        assert figure["application/vnd.plotly.v1+json"]["data"][0]["y"] == [2.0, None, 1.0]
        assert "The numbers as a table" in words["text/html"]
        assert "nbformat" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", code], check=True)
