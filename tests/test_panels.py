"""The panels in plain Python: setting a widget does what moving it does, and errors are told."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from qwqlab.errors import BusyError, ClosedError, QwqlabError
from qwqlab.experiments import PAIRS, Pair, sweep
from qwqlab.llamacpp import Loading
from qwqlab.models import requantize, room
from qwqlab.sampling import BY_NAME, PRESETS, Command, Engine, Request, Run, Sampling, parse_command
from qwqlab.widgets import Microscope, RunProgress, SideBySide, ThinkPanel
from qwqlab.widgets.base import Latest, Panel, Throttle
from qwqlab.widgets.controls import MAIN, MORE, OrderEditor, SamplingControls
from qwqlab.widgets.engines import EnginePanel
from qwqlab.widgets.side_by_side import summarize_run

ARTICLE = PRESETS["article"]
STRONG = PRESETS["official"].with_(repeat_penalty=1.5)


@pytest.fixture(scope="module")
def exact_engine(model_path: Path) -> Iterator[Engine]:
    """One whose runs are the same alone and in a batch."""
    with Engine(model_path, Loading(flash_attn="off")) as engine:
        assert engine.width_independent
        yield engine


@pytest.fixture(scope="module")
def one_microscope(engine: Engine, code_prompt: str) -> Microscope:
    return Microscope(engine, Request(code_prompt, ARTICLE, 1, 40))


@pytest.fixture
def microscope(one_microscope: Microscope) -> Microscope:
    """A microscope at its first step, with the settings of its run."""
    one_microscope.controls.set(ARTICLE)
    one_microscope.step.value = 0
    one_microscope.redraw()
    assert one_microscope.wait()
    return one_microscope


def axis_of(microscope: Microscope) -> tuple[str, ...]:
    """The rows of the chart that is on the page."""
    return tuple(microscope.figure.figure["layout"]["yaxis"]["ticktext"])


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
        assert axis_of(microscope) == ("raw", *ARTICLE.samplers, "dist")
        title = microscope.figure.figure["layout"]["title"]["text"]
        assert title.startswith(f"Step {step}: ")


def test_a_slider_changes_the_chart(microscope: Microscope) -> None:
    before = [trace["y"] for trace in microscope.figure.figure["data"]]
    microscope.controls.numbers["top_k"].value = 2
    assert microscope.grid is not None and microscope.grid.left[1] == 2
    assert [trace["y"] for trace in microscope.figure.figure["data"]] != before


def test_a_page_that_is_opened_later_starts_from_the_chart_as_it_is_now(
    microscope: Microscope,
) -> None:
    microscope.step.value = 9
    microscope.controls.preset.value = "llama.cpp"
    assert microscope.grid is not None
    state = microscope.figure.get_state()["figure"]
    assert state["layout"]["title"]["text"].startswith("Step 9: ")
    others = state["data"][2]
    assert len(others["x"]) == len(others["base"]) == len(microscope.grid.rows)


def test_the_microscope_warns_of_the_penalty_that_does_nothing(microscope: Microscope) -> None:
    assert "repeat_penalty=1.1 has no effect" in microscope.warning.value
    microscope.controls.order.samplers = ("penalties", *ARTICLE.samplers)
    assert microscope.warning.value == ""


def test_the_articles_list_draws_the_same_run_at_any_penalty(microscope: Microscope) -> None:
    microscope.controls.numbers["repeat_penalty"].value = 2.0
    assert microscope.wait()
    assert "draw the same 40 tokens" in microscope.detour.value


def test_the_microscope_finds_where_a_setting_parts_from_the_run_and_goes_there(
    microscope: Microscope,
) -> None:
    microscope.controls.set(STRONG)
    microscope.redraw()
    assert microscope.wait()
    found = microscope.probe.find_detour(STRONG)
    assert found is not None
    assert f"at step {found.step}: " in microscope.detour.value
    microscope.detour_button.click()
    assert microscope.step.value == found.step
    drawn = microscope.probe.run.tokens[found.step]
    assert microscope.grid is not None and microscope.grid.view.token != drawn
    assert "another token" in microscope.outcome.value


def test_the_command_says_the_setting_in_force(microscope: Microscope) -> None:
    microscope.controls.numbers["temp"].value = 1.3
    read = parse_command(microscope.command.value)
    assert read.sampling == microscope.sampling == ARTICLE.with_(temp=1.3)
    assert read.prompt == microscope.probe.run.request.prompt


def test_escapes_are_found_in_both_directions(engine: Engine, code_prompt: str) -> None:
    microscope = Microscope(engine, Request(code_prompt, STRONG, 1, 40))
    escapes = microscope.probe.run.escapes
    assert microscope.step.value == escapes[0]
    microscope.buttons["next escape"].click()
    assert microscope.step.value == escapes[1]
    microscope.buttons["previous escape"].click()
    assert microscope.step.value == escapes[0]
    microscope.buttons["previous escape"].click()
    assert "no earlier escape" in microscope.status.value


def test_run_again_makes_a_run_under_the_new_settings(engine: Engine, code_prompt: str) -> None:
    microscope = Microscope(engine, Request(code_prompt, ARTICLE, 1, 10))
    microscope.controls.preset.value = "official"
    microscope.buttons["run"].click()
    assert microscope.wait()
    assert microscope.probe.run.request.sampling == PRESETS["official"]
    assert "the same token" in microscope.outcome.value


def test_what_the_model_wrote_is_escaped_on_the_page(engine: Engine) -> None:
    microscope = Microscope(engine, Request("<img src=x onerror=alert(1)>" * 4, STRONG, 1, 30))
    page = microscope.text.value + microscope.words.value + microscope.outcome.value
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


def test_side_by_side_gives_the_runs_that_the_engine_gives_alone(
    exact_engine: Engine, code_prompt: str
) -> None:
    panel = SideBySide(exact_engine, Pair("two", code_prompt, 3, (STRONG, ARTICLE), n_predict=30))
    panel.run_button.click()
    assert panel.wait()
    assert panel.status.value == ""
    for run, sampling in zip(finished(panel), (STRONG, ARTICLE), strict=True):
        assert run.tokens == exact_engine.generate(code_prompt, sampling, 3, 30).tokens
    for side, run in zip(panel.sides, finished(panel), strict=True):
        request = run.request
        assert parse_command(side.command.value) == Command(
            request.sampling, exact_engine.loading, exact_engine.path, code_prompt, 3, 30
        )
    assert "escapes" in panel.sides[0].text.value and not panel.run_button.disabled


def test_stop_ends_both_runs_and_the_next_run_is_whole(engine: Engine, code_prompt: str) -> None:
    hot = Sampling(temp=1.8, min_p=0, top_k=0, top_p=1)
    hotter = hot.with_(temp=1.7)
    panel = SideBySide(engine, Pair("hot", code_prompt, 3407, (hot, hotter), n_predict=2000))
    written = threading.Event()
    panel.sides[0].text.observe(lambda _: written.set(), "value")
    panel.run_button.click()
    assert written.wait(30)
    panel.stop_button.click()
    assert panel.wait(10)
    assert {run.stop for run in finished(panel)} == {"stopped"}
    assert all(0 < len(run.tokens) < 2000 for run in finished(panel))
    panel.limit.value = 8
    panel.run_button.click()
    assert panel.wait()
    assert [len(run.tokens) for run in finished(panel)] == [8, 8]


def test_a_pair_is_chosen_with_its_prompt_seed_and_both_settings(exact_engine: Engine) -> None:
    panel = SideBySide(exact_engine)
    for pair in (PAIRS[2], PAIRS[0]):
        panel.pair.value = pair.name
        assert panel.requests() == pair.requests()
        for side, request in zip(panel.sides, pair.requests(), strict=True):
            assert parse_command(side.command.value).sampling == request.sampling
            assert "edited" not in side.head.value


def test_both_sides_can_be_edited_and_run_as_they_are(exact_engine: Engine) -> None:
    panel = SideBySide(exact_engine, Pair("two", "Hi", 1, (STRONG, ARTICLE), n_predict=4))
    one, two = panel.sides
    one.edit.click()
    assert one.controls.box.layout.display == "" and two.controls.box.layout.display == "none"
    one.controls.preset.value = "article_with_penalties"
    two.controls.numbers["temp"].value = 1.2
    two.controls.order.samplers = ("penalties", *ARTICLE.samplers)
    wanted = [
        PRESETS["article_with_penalties"],
        ARTICLE.with_(temp=1.2, samplers=("penalties", *ARTICLE.samplers)),
    ]
    assert [parse_command(side.command.value).sampling for side in panel.sides] == wanted
    assert two.warning.value == "" and "edited" in two.head.value
    panel.run_button.click()
    assert panel.wait()
    assert [run.request.sampling for run in finished(panel)] == wanted


def test_a_prompt_is_chosen_and_edited_and_run(engine: Engine) -> None:
    microscope = Microscope(engine, Request("Hi", ARTICLE, 1, 4))
    field = microscope.prompt
    field.choice.value = "code: is_prime"
    assert "is_prime(n)" in field.value and field.value.endswith("assistant\n")
    field.field.value += "It"
    assert field.choice.value == "(edited)"
    microscope.run_button.click()
    assert microscope.wait()
    assert microscope.probe.run.request.prompt == field.value
    field.choice.value = "the panel's own"
    assert field.value == "Hi"


@pytest.mark.parametrize(
    "make",
    [
        lambda engine: SideBySide(engine, Pair("two", "Hi", 1, (STRONG, ARTICLE), n_predict=4)),
        lambda engine: Microscope(engine, Request("Hi", n_predict=4)),
        lambda engine: ThinkPanel(engine, "Hi", n_predict=4),
    ],
    ids=["SideBySide", "Microscope", "ThinkPanel"],
)
def test_another_model_is_chosen_and_runs_and_the_given_one_stays_open(
    make: Callable[[Engine], EnginePanel], engine: Engine, model_path: Path
) -> None:
    other = str(requantize(model_path, "Q4_0"))
    panel = make(engine)
    panel.models.value = other
    assert panel.wait()
    opened = panel.engine
    assert (opened.path, panel.status.value) == (other, "")
    panel.run_button.click()
    assert panel.wait() and panel.status.value == ""
    panel.models.value = engine.path
    assert panel.wait()
    assert panel.engine is engine
    with pytest.raises(ClosedError):
        opened.generate("Hi", n_predict=1)
    panel.run_button.click()
    assert panel.wait() and panel.status.value == ""


def test_a_model_that_cannot_be_had_is_told_and_the_old_one_stays(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")
    panel = SideBySide(engine, Pair("two", "Hi", 1, (STRONG, ARTICLE), n_predict=4))
    large = next(path for _, path in panel.models.options if path != engine.path)
    panel.models.options = [*panel.models.options, ("broken", str(broken))]
    monkeypatch.setattr(room, "measure_room", lambda: room.Room(card=0, ram=1_000_000))
    for path, said in (
        (str(broken), "broken.gguf"),
        (large, "take a smaller model"),
    ):
        panel.models.value = path
        assert panel.wait()
        assert said in panel.status.value
        assert panel.engine is engine and panel.models.value == engine.path


def test_a_model_is_not_changed_in_the_middle_of_a_run(engine: Engine, model_path: Path) -> None:
    hot = Sampling(temp=1.8, min_p=0, top_k=0, top_p=1, ignore_eos=True)
    panel = SideBySide(engine, Pair("hot", "Hi", 1, (hot, hot), n_predict=2000))
    panel.start()
    panel.models.value = str(requantize(model_path, "Q4_0"))
    assert "at work already" in panel.status.value and panel.models.value == engine.path
    panel.stop()
    assert panel.wait() and panel.engine is engine


def test_two_panels_on_one_engine_do_not_run_at_once(engine: Engine, code_prompt: str) -> None:
    panel = SideBySide(engine, Pair("two", code_prompt, 1, (STRONG, ARTICLE), n_predict=4))
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
    panel = SideBySide(engine, Pair("long", "word " * 9000, 1, (STRONG, ARTICLE)))
    panel.run_button.click()
    assert panel.wait()
    assert "shorten it or raise n_ctx" in panel.status.value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("No program here.", "not valid, no fenced block"),
        ("```python\nx = 1\n```", "valid"),
        ("```python\nprint(x)\n```", "not valid, line 1: x is bound nowhere"),
    ],
)
def test_a_summary_judges_the_first_code_block(text: str, said: str) -> None:
    run = Run(Request("p"), 1, (1, 2), text, "length", (0, 0), (1,), 0.5)
    summary = summarize_run(run)
    assert summary["code"] == said
    assert summary["escapes"] == "1 of 2 tokens"
    assert summary["end"].endswith("(a runaway)")


class Work(Panel):
    """A panel that does what it is told."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__("Run", "")
        self.work = work

    def _work(self) -> None:
        self.work()


def test_a_panel_tells_an_error_and_takes_the_next_job() -> None:
    def fail() -> None:
        raise QwqlabError("the <b>sentence</b>")

    done: list[str] = []
    panel = Work(fail)
    panel.run_button.click()
    assert panel.wait(5)
    assert "the &lt;b&gt;sentence" in panel.status.value and not panel.run_button.disabled
    panel.work = lambda: done.append("done")
    panel.run_button.click()
    assert panel.wait(5)
    assert done == ["done"] and panel.status.value == ""


def test_a_panel_does_one_job_at_a_time() -> None:
    go, done = threading.Event(), list[bool]()
    panel = Work(lambda: done.append(go.wait(5)))
    panel.start()
    panel.start()
    assert "at work already; press Stop first" in panel.status.value
    go.set()
    assert panel.wait(5) and done == [True] and panel.status.value == ""


def test_only_the_last_job_of_a_burst_is_shown() -> None:
    shown: list[int] = []
    latest = Latest(lambda job: job(), delay=0.3)
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


def test_a_panel_loads_neither_torch_nor_transformers_nor_nbformat() -> None:
    """They take seconds, in the first cell of a notebook."""
    code = """if True:
        import sys
        from qwqlab.widgets import GradePanel, JobPanel, LossPanel
        from qwqlab.widgets import Microscope, SideBySide, ThinkPanel
        assert not {"torch", "transformers", "nbformat"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_text_keeps_the_name_of_its_settings_when_others_are_chosen(engine: Engine) -> None:
    panel = SideBySide(engine, Pair("two", "Hi", 1, (STRONG, ARTICLE), ("strong", "mild"), 12))
    panel.run_button.click()
    assert panel.wait()
    side = panel.sides[0]
    assert "earlier" not in side.warning.value and "other settings" not in side.warning.value
    side.controls.numbers["temp"].value = 1.5
    assert "made by other settings" in side.warning.value
    assert "other settings" not in panel.sides[1].warning.value
    panel.start()
    panel.seed.value = 9  # while it runs, or just after
    assert panel.wait()
    assert panel.runs[0] is not None and panel.runs[0].request.seed == 1
    assert "made by other settings" in side.warning.value
    panel.pair.value = PAIRS[0].name
    assert side.text.value == "" and "other settings" not in side.warning.value


def test_an_answer_to_an_earlier_prompt_is_said_to_be_one(engine: Engine) -> None:
    panel = ThinkPanel(engine, "What is 2 + 2?", n_predict=4)
    panel.run_button.click()
    assert panel.wait() and "earlier prompt" not in panel.words.value
    panel.question.value = "What is 3 + 3?"
    assert panel.wait() and "earlier prompt" in panel.words.value
    panel.run_button.click()
    assert panel.wait() and "earlier prompt" not in panel.words.value
