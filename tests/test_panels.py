"""The panels in plain Python: setting a widget does what moving it does, and errors are told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import traitlets

from qwqlab.command import Command, parse_command
from qwqlab.engine import Engine
from qwqlab.errors import BusyError, QwqlabError
from qwqlab.loading import Loading
from qwqlab.records import Request, Run
from qwqlab.sampling import PRESETS, Sampling
from qwqlab.settings import BY_NAME
from qwqlab.sweep import sweep
from qwqlab.widgets import Microscope, OrderEditor, RunProgress, SideBySide
from qwqlab.widgets.controls import MAIN, MORE, SamplingControls
from qwqlab.widgets.side_by_side import compare, describe
from qwqlab.widgets.workers import Latest, Throttle, Worker

ARTICLE = PRESETS["article"]
STRONG = PRESETS["official"].with_(repeat_penalty=1.5)


@pytest.fixture(scope="module")
def exact_engine(model_path: Path) -> Iterator[Engine]:
    """One whose runs are the same alone and in a batch."""
    with Engine(model_path, Loading(flash_attn="off")) as engine:
        assert engine.width_independent
        yield engine


@pytest.fixture
def microscope(engine: Engine, code_prompt: str) -> Microscope:
    made = Microscope(engine, Request(code_prompt, ARTICLE, 1, 60))
    assert made.wait()
    return made


def finished(panel: SideBySide) -> list[Run]:
    """The runs of a panel, which must both have begun."""
    assert all(panel.runs)
    return [run for run in panel.runs if run is not None]


def test_the_microscope_shows_what_the_probe_says(microscope: Microscope) -> None:
    for step in (0, 7, 30):
        microscope.step.value = step
        view = microscope.probe.step(step)
        assert microscope.grid is not None
        assert microscope.grid.view.token == view.token == microscope.probe.run.tokens[step]
        assert microscope.figure.layout.yaxis.ticktext == ("raw", *ARTICLE.samplers, "dist")
        assert microscope.figure.layout.title.text.startswith(f"Step {step}: ")


def test_a_slider_changes_the_chart_in_place(microscope: Microscope) -> None:
    traces = [id(trace) for trace in microscope.figure.data]
    before = [list(trace.y) for trace in microscope.figure.data]
    microscope.controls.numbers["top_k"].value = 2
    assert microscope.grid is not None and microscope.grid.left[1] == 2
    assert [list(trace.y) for trace in microscope.figure.data] != before
    assert [id(trace) for trace in microscope.figure.data] == traces


def test_a_page_that_is_opened_later_starts_from_the_chart_as_it_is_now(
    microscope: Microscope,
) -> None:
    microscope.step.value = 9
    microscope.controls.preset.value = "llama.cpp"
    state = microscope.figure.get_state()
    assert state["_widget_layout"]["title"]["text"] == microscope.figure.layout.title.text
    others = state["_widget_data"][2]
    assert microscope.grid is not None
    assert len(others["x"]) == len(others["base"]) == len(microscope.grid.rows)
    assert list(others["text"]) == list(microscope.figure.data[2].text)


def test_the_microscope_warns_of_the_penalty_that_does_nothing(microscope: Microscope) -> None:
    assert "repeat_penalty=1.1 has no effect" in microscope.warning.value
    microscope.controls.order.samplers = ("penalties", *ARTICLE.samplers)
    assert microscope.warning.value == ""


def test_the_articles_list_draws_the_same_run_at_any_penalty(microscope: Microscope) -> None:
    microscope.controls.numbers["repeat_penalty"].value = 2.0
    assert microscope.wait()
    assert "draw the same 60 tokens" in microscope.divergence.value


def test_the_microscope_finds_where_a_setting_parts_from_the_run_and_goes_there(
    microscope: Microscope,
) -> None:
    microscope.controls.set(STRONG)
    microscope._look()
    assert microscope.wait()
    found = microscope.probe.first_divergence(STRONG)
    assert found is not None
    assert f"at step {found.step}: " in microscope.divergence.value
    microscope._go.click()
    assert microscope.step.value == found.step
    assert microscope.grid is not None and microscope.grid.view.token == found.other
    assert "another token" in microscope.outcome.value


def test_the_command_says_the_setting_in_force(microscope: Microscope) -> None:
    microscope.controls.numbers["temp"].value = 1.3
    read = parse_command(microscope.command.value)
    assert read.sampling == microscope.sampling == ARTICLE.with_(temp=1.3)
    assert read.prompt == microscope.probe.run.request.prompt


def test_escapes_are_found_in_both_directions(engine: Engine, code_prompt: str) -> None:
    microscope = Microscope(engine, Request(code_prompt, STRONG, 1, 60))
    escapes = microscope.probe.run.escapes
    assert microscope.step.value == escapes[0]
    microscope.buttons["next escape"].click()
    assert microscope.step.value == escapes[1]
    microscope.buttons["previous escape"].click()
    assert microscope.step.value == escapes[0]
    microscope.buttons["previous escape"].click()
    assert "no earlier escape" in microscope.status.value


def test_run_again_makes_a_run_under_the_new_settings(microscope: Microscope) -> None:
    microscope.controls.preset.value = "official"
    microscope.buttons["run"].click()
    assert microscope.wait()
    assert microscope.probe.run.request.sampling == PRESETS["official"]
    assert "the same token" in microscope.outcome.value


def test_what_the_model_wrote_is_escaped_on_the_page(engine: Engine) -> None:
    microscope = Microscope(engine, Request("<img src=x onerror=alert(1)>" * 4, STRONG, 1, 30))
    page = microscope.text.value + microscope.table.value + microscope.outcome.value
    assert "<img" not in page


def test_every_slider_move_changes_the_command_and_is_timed(
    microscope: Microscope, record_property: Callable[[str, object], None]
) -> None:
    slider, taken = microscope.controls.numbers["temp"], []
    for i in range(21):
        started = time.perf_counter()
        slider.value = 0.5 + 0.05 * i
        taken.append(time.perf_counter() - started)
        assert f"--temp {slider.value!r}" in microscope.command.value
    # How long a move takes is noted, not judged: the machine may be busy.
    record_property("seconds_to_redraw", sorted(taken)[10])


def test_every_preset_can_be_shown_and_read_back() -> None:
    calls: list[int] = []
    controls = SamplingControls(Sampling(), lambda: calls.append(1))
    for count, (name, preset) in enumerate(PRESETS.items(), start=1):
        controls.preset.value = name
        assert controls.sampling == preset
        assert controls.preset.value == name
        assert len(calls) == count
    controls.numbers["temp"].value = 0.33
    assert controls.preset.value == "(none of them)"


def test_a_value_beyond_a_slider_widens_it() -> None:
    odd = Sampling(temp=3.5, top_k=500, repeat_last_n=4096, dry_sequence_breakers=("x",))
    assert SamplingControls(odd, lambda: None).sampling == odd


def test_every_slider_holds_what_llama_cpp_can_use() -> None:
    for name, low, high, step in (*MAIN, *MORE):
        setting = BY_NAME[name]
        assert setting.low <= low < high <= setting.high
        assert setting.kind is float or isinstance(step, int)
        Sampling().with_(**{name: low})
        Sampling().with_(**{name: high})


def test_the_order_editor_gives_the_stages_that_are_on_in_their_order() -> None:
    editor = OrderEditor(ARTICLE.samplers)
    assert editor.samplers == ARTICLE.samplers
    assert set(editor.order) > set(editor.enabled)
    editor.order = list(reversed(editor.order))
    assert editor.samplers == tuple(reversed(ARTICLE.samplers))
    editor.enabled = ["top_k"]
    assert editor.samplers == ("top_k",)


def test_the_order_editor_refuses_what_is_not_a_sampler() -> None:
    editor = OrderEditor()
    with pytest.raises(traitlets.TraitError, match="not a sampler"):
        editor.order = ["top_k", "<script>"]
    with pytest.raises(traitlets.TraitError, match="twice"):
        editor.enabled = ["top_k", "top_k"]
    assert editor.samplers == Sampling().samplers


def test_side_by_side_gives_the_runs_that_the_engine_gives_alone(
    exact_engine: Engine, code_prompt: str
) -> None:
    panel = SideBySide(exact_engine, code_prompt, STRONG, ARTICLE, seed=3, n_predict=50)
    panel.run_button.click()
    assert panel.wait()
    assert panel.status.value == ""
    for run, sampling in zip(finished(panel), (STRONG, ARTICLE), strict=True):
        assert run.tokens == exact_engine.generate(code_prompt, sampling, 3, 50).tokens
    for field, run in zip(panel.commands, finished(panel), strict=True):
        request = run.request
        assert parse_command(field.value) == Command(
            request.sampling, exact_engine.loading, exact_engine.path, code_prompt, 3, 50
        )
    assert "escapes" in panel.texts[0].value and not panel.run_button.disabled


def test_stop_ends_both_runs_and_the_next_run_is_whole(engine: Engine, code_prompt: str) -> None:
    hot = Sampling(temp=1.8, min_p=0, top_k=0, top_p=1)
    panel = SideBySide(engine, code_prompt, hot, hot.with_(temp=1.7), n_predict=2000)
    written = threading.Event()
    panel.texts[0].observe(lambda _: written.set(), "value")
    panel.run_button.click()
    assert written.wait(30)
    panel.stop_button.click()
    assert panel.wait(10)
    assert {run.stop for run in finished(panel)} == {"stopped"}
    assert all(0 < len(run.tokens) < 2000 for run in finished(panel))
    panel.n_predict = 8
    panel.run_button.click()
    assert panel.wait()
    assert [len(run.tokens) for run in finished(panel)] == [8, 8]


def test_two_panels_on_one_engine_do_not_run_at_once(engine: Engine, code_prompt: str) -> None:
    panel = SideBySide(engine, code_prompt, STRONG, ARTICLE, n_predict=4)
    other = engine.run([Request(code_prompt, n_predict=1), Request(code_prompt, n_predict=9)])
    next(other)
    panel.run_button.click()
    assert panel.wait()
    assert "this engine is at work already" in panel.status.value
    with pytest.raises(BusyError):
        Microscope(engine, Request(code_prompt))
    assert len(list(other)) == 1
    panel.run_button.click()
    assert panel.wait()
    assert panel.status.value == ""


def test_a_prompt_that_does_not_fit_is_told_in_the_status_line(engine: Engine) -> None:
    panel = SideBySide(engine, "word " * 9000, STRONG, ARTICLE, n_predict=4)
    panel.run_button.click()
    assert panel.wait()
    assert "shorten it or raise n_ctx" in panel.status.value


def test_compare_streams_the_whole_text_of_each_run(engine: Engine, code_prompt: str) -> None:
    texts = ["", ""]
    requests = [Request(code_prompt, sampling, 1, 30) for sampling in (STRONG, ARTICLE)]

    def add(index: int, text: str) -> None:
        texts[index] += text

    runs = compare(engine, requests, add)
    assert texts == [run.text for run in runs if run]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("No program here.", "not valid, no fenced block"),
        ("```python\nx = 1\n```", "valid"),
        ("```python\nprint(x)\n```", "not valid, line 1: x is bound nowhere"),
    ],
)
def test_describe_judges_the_first_code_block(text: str, said: str) -> None:
    run = Run(Request("p"), 1, (1, 2), text, "length", (0, 0), (1,), 0.5)
    assert describe(run)["code"] == said
    assert describe(run)["escapes"] == "1 of 2 tokens"
    assert describe(run)["end"].endswith("(a runaway)")


def test_a_worker_tells_an_error_and_takes_the_next_job() -> None:
    said: list[str] = []
    worker = Worker(said.append)

    def fail() -> None:
        raise QwqlabError("the sentence")

    assert worker.start(fail) and worker.wait(5)
    assert worker.start(lambda: said.append("done")) and worker.wait(5)
    assert said == ["the sentence", "done"]


def test_a_worker_does_one_job_at_a_time() -> None:
    said: list[str] = []
    worker, go = Worker(said.append), threading.Event()

    def wait() -> None:
        assert go.wait(5)

    assert worker.start(wait)
    assert not worker.start(lambda: said.append("second"))
    go.set()
    assert worker.wait(5)
    assert said == ["This panel is at work already; press Stop first."]


def test_only_the_last_job_of_a_burst_is_shown() -> None:
    shown: list[int] = []
    latest = Latest(lambda sentence: None, delay=1.0)
    for i in range(20):
        latest.submit(partial(partial, shown.append, i))
    assert latest.wait()
    assert shown == [19]


def test_a_throttle_lets_the_first_call_through_and_not_the_next() -> None:
    throttle = Throttle(60)
    assert throttle.ready()
    assert not throttle.ready()


def test_a_bar_follows_a_sweep(engine: Engine, code_prompt: str) -> None:
    bar = RunProgress()
    requests = [Request(code_prompt, n_predict=2, seed=seed) for seed in range(3)]
    sweep(engine, requests, on_run=bar)
    assert (bar.bar.value, bar.bar.max) == (3, 3)
    assert bar.text.value.startswith("3 of 3, ")
