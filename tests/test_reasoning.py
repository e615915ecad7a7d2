"""The experiment on models that think or are large: what is asked, and what is counted where."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from qwqlab import cli, paths, preflight
from qwqlab.errors import ModelFileError, SettingError
from qwqlab.experiments import (
    CHATML,
    Grid,
    Part,
    check_run,
    count_arms,
    find_break,
    list_arms,
    list_more_arms,
    measure,
    open_engine,
    penalty_and_order,
    plan_grid,
    plan_requests,
    run_experiment,
    summarize,
    sweep,
)
from qwqlab.experiments.penalty_and_order import FULL, QUICK
from qwqlab.models import (
    GGUFInfo,
    check_room,
    inspect,
    is_embedded,
    read_template,
    requantize,
    room,
    sweep_copy,
)
from qwqlab.plots import draw_arms, make_table
from qwqlab.sampling import DEFAULT_ORDER, MARCH_2025, PRESETS, Engine, Request, Run

THINKS = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n"
DRAFT = "Let me try:\n```python\nx = (\n```\nNo, wait.\n"
PROGRAM = "```python\nx = 1\n```"
BROKEN = "```python\nprint(zebra)\n```"
CYCLE = "But wait, the sum may be wrong. " * 40


def make_run(text: str, prompt: str = THINKS, stop: str = "end", label: str = "a | long") -> Run:
    request = Request(prompt, label=label)
    return Run(request, 1, tuple(range(len(text))), text, stop, (0,) * len(text), (), 0.1)


def force_thinking(info: GGUFInfo) -> GGUFInfo:
    """The header of a model whose template ends each prompt in <think>."""
    own = {"tokenizer.chat_template": read_template("with-think")}
    return replace(info, metadata={**info.metadata, **own})


def test_loops_are_counted_where_they_are() -> None:
    runs = {
        "fine": make_run(f"{DRAFT}</think>\n\n{PROGRAM}"),
        "the thinking loops": make_run(CYCLE, stop="length"),
        "it loops and is left": make_run(f"{CYCLE}</think>\n\nThe sum is 4, as I said at first."),
        "the answer loops": make_run(f"Hm.\n</think>\n\n{CYCLE}", stop="length"),
        "it only never ends": make_run("So many ways, and so few of them are good", stop="length"),
        "its own tag": make_run(f"<think>\n{CYCLE}", prompt="p", stop="length"),
        "it does not think": make_run(CYCLE, prompt="p", stop="length"),
    }
    found = {name: measure(run) for name, run in runs.items()}
    counted = {
        name: (m.thinking, m.thinking_loop, m.unclosed, m.answer_loop) for name, m in found.items()
    }
    assert counted == {
        "fine": (True, False, False, False),
        "the thinking loops": (True, True, True, False),
        "it loops and is left": (True, True, False, False),
        "the answer loops": (True, False, False, True),
        "it only never ends": (True, False, True, False),
        "its own tag": (True, True, True, False),
        "it does not think": (False, False, False, True),
    }
    (arm,) = count_arms(list(runs.values()))
    assert (arm.thinking, arm.thinking_loops, arm.unclosed, arm.answer_loops) == (6, 3, 3, 2)
    assert arm.rate("loops").count == sum(m.loop for m in found.values()) == 4
    (row,) = make_table([arm]).to_dict("records")
    assert (row["thinking loops"], row["unclosed"], row["answer loops"]) == ("3/6", "3/6", "2")


def test_the_last_program_of_the_answer_counts_and_no_draft() -> None:
    def judge(text: str, prompt: str = THINKS) -> str:
        return check_run(make_run(text, prompt)).reason

    assert judge(f"{DRAFT}</think>\n\n{PROGRAM}") == ""
    assert (
        judge(f"</think>\n{PROGRAM}\nIt prints\n```\n1 (\n```\n") == ""
    )  # no Python, so no program
    assert judge(f"</think>\n{PROGRAM}\nOr:\n{BROKEN}") == "line 1: zebra is bound nowhere"
    assert judge(f"</think>\n{BROKEN}\nOr:\n{PROGRAM}") == ""
    assert judge(f"{PROGRAM}\n</think>\n\nSo it is.") == "no fenced block"
    assert judge(PROGRAM) == "the thinking never ends, so there is no answer"
    # Without thinking it is the first, as in the published counts.
    assert judge(f"{PROGRAM}\nOr:\n{BROKEN}", prompt="p") == ""


def test_the_token_that_broke_an_answer_is_not_looked_for_in_the_thinking() -> None:
    pieces = [DRAFT, "\n</think>\n\n", "```python\n", "print(", "zebra", ")\n", "```"]
    text = "".join(pieces)
    run = Run(Request(THINKS), 1, tuple(range(7)), text, "end", (0,) * 7, (0, 4), 0.1)
    assert find_break(run, pieces) == 4


def test_the_embedded_models_requests_are_those_of_the_published_counts() -> None:
    def hash_plan(grid: Grid) -> str:
        values = [request.to_dict() for request in plan_requests(grid)]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    assert (hash_plan(QUICK), hash_plan(FULL)) == ("aa31569ebcdde8e6", "72c1fe446c902509")


def test_the_embedded_model_and_its_copies_keep_their_prompts(
    model_path: Path, tmp_path: Path
) -> None:
    assert is_embedded(model_path) and is_embedded(sweep_copy(model_path))
    other = tmp_path / "other.gguf"
    other.write_bytes(model_path.read_bytes()[:-1] + b"\0")
    assert not is_embedded(other)


def test_a_model_is_asked_in_its_own_template_and_may_think(engine: Engine) -> None:
    grid = Grid(Part(1, 1, 5), Part(1, 1, 7), thinking_tokens=11)
    own = plan_requests(grid, engine.info)
    assert all("named SmolLM" in r.prompt for r in own)
    assert {r.n_predict for r in own} == {5, 7}  # its template knows no thinking
    forced = plan_requests(grid, force_thinking(engine.info), list_more_arms())
    assert {r.n_predict for r in forced} == {16, 18}
    plain = plan_requests(grid)
    assert {r.prompt for r in forced} == {f"{r.prompt}<think>\n" for r in plain}
    nothing = replace(engine.info, metadata={})
    assert [r.prompt for r in plan_requests(grid, nothing)] == [r.prompt for r in plain]


def test_a_beginning_that_the_tokenizer_adds_is_not_asked_for_twice(engine: Engine) -> None:
    values = {
        **engine.info.metadata,
        "tokenizer.chat_template": "{{ bos_token }}{{ messages[0].content }}</think>",
    }
    grid = Grid(Part(1, 1, 5))
    prompts = []
    for add_bos in (True, False):
        metadata = {**values, "tokenizer.ggml.add_bos_token": add_bos}
        (request, *_) = plan_requests(grid, replace(engine.info, metadata=metadata))
        prompts.append(request.prompt)
    assert prompts[1] == f"<|im_start|>{prompts[0]}"


def test_a_forced_thinking_is_counted_in_real_runs(engine: Engine) -> None:
    grid = Grid(Part(1, 1, 1), Part(1, 1, 1), thinking_tokens=2)
    requests = plan_requests(grid, force_thinking(engine.info))
    results = count_arms(sweep(engine, requests))
    assert all(arm.thinking == arm.unclosed == 2 for arm in results)
    assert not any(arm.rate("valid").count for arm in results)
    assert "The model thinks. With no penalty 2 of 2 runs" in summarize(results)


def test_the_full_experiment_has_min_p_and_the_presence_penalty_too() -> None:
    official, more = PRESETS["official"], list_more_arms()
    changes = [
        {name: value for name, value in arm.to_dict().items() if value != official.to_dict()[name]}
        for arm in more.values()
    ]
    assert changes == [
        {"min_p": 0.1},
        {
            "samplers": list(MARCH_2025.samplers),
            "min_p": 0.1,
            "repeat_penalty": 1.1,
            "dry_multiplier": 0.5,
            "dry_penalty_last_n": 16384,
        },
        {"samplers": list(DEFAULT_ORDER[1:]), "dry_multiplier": 0.5},
        {"presence_penalty": 1.0},
        {"presence_penalty": 2.0},
    ]
    runs = [
        make_run(PROGRAM, "p", label=f"{name} | {kind}")
        for name in (*list_arms(), *more)
        for kind in ("code", "long")
    ]
    runs = [
        replace(run, request=replace(run.request, sampling=({**list_arms(), **more})[name]))
        for run in runs
        for name in [run.request.label.rsplit(" | ", 1)[0]]
    ]
    results = count_arms(runs)
    assert [arm.name for arm in results] == [*list_arms(), *more]
    text = summarize(results)
    assert "llama.cpp order, 1.1, min_p 0.1, against llama.cpp order, 1.1:" in text
    assert "presence penalty, 2.0, against no penalty:" in text
    assert "DRY alone, window 64, against DRY alone:" in text
    loops, *_ = draw_arms({"model": results}, ("loops",)).figure.data
    assert len(loops.x) == len(results)


def test_budgets_are_given_in_tokens_for_thinking_and_for_the_answer() -> None:
    assert plan_grid(True) == QUICK and plan_grid(False) == FULL
    grid = plan_grid(True, thinking_tokens=50, answer_tokens=20)
    assert (grid.thinking_tokens, grid.code.tokens, grid.long.tokens) == (50, 20, 20)
    with pytest.raises(SettingError, match="answer_tokens=0 is out of range"):
        plan_grid(True, answer_tokens=0)


def test_a_model_that_is_not_small_runs_as_it_is_unless_exactness_is_asked_for(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(penalty_and_order, "SMALL", 1000)
    with open_engine() as engine:
        assert engine.path == str(model_path)
    with open_engine(exact=True) as engine:
        assert engine.path == str(sweep_copy(model_path)) and engine.width_independent
    monkeypatch.setattr(room, "measure_room", lambda: room.Room(card=1 << 40, ram=9))
    with pytest.raises(ModelFileError, match=r"takes \d+.* of memory with 5,000 tokens"):
        open_engine(exact=True)


def test_a_copy_for_which_the_disk_has_no_room_is_not_begun(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = inspect(model_path)
    monkeypatch.setattr(paths, "models_dir", lambda: tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1_000_000}))
    with pytest.raises(ModelFileError, match=r"takes 2\d\d.* MB, and the disk of .* has 1.0 MB"):
        check_room(info, 512, quant="BF16")
    assert not list(tmp_path.iterdir())


def test_the_command_says_that_a_batch_of_a_large_model_cannot_be_repeated(
    model_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copy = requantize(model_path, "F16")
    monkeypatch.setattr(penalty_and_order, "SMALL", 1000)
    monkeypatch.setattr(penalty_and_order, "QUICK", Grid(Part(1, 1, 3), Part(1, 1, 3)))
    monkeypatch.setattr(paths, "runs_dir", lambda: tmp_path)
    out, store = tmp_path / "counts.json", tmp_path / "mine.sqlite"
    command = ["reproduce", "--quick", "--model", str(copy), "--json", str(out)]
    command += ["--store", str(store), "--thinking-tokens", "9"]
    assert cli.main([*command, "--answer-tokens", "2"]) == 0
    assert {path.name for path in tmp_path.iterdir()} >= {"mine.sqlite", "mine.html"}
    assert cli.main(["reproduce", "--quick", "--store", str(tmp_path / "mine.html")]) == 1
    said = capsys.readouterr()
    assert "--thinking-tokens changes nothing" in said.err
    assert "so a run of a batch can't be repeated token for token; --exact" in said.err
    arms = json.loads(out.read_text(encoding="utf-8"))["arms"]
    assert [arm["name"] for arm in arms] == list(list_arms())
    assert {(arm["thinking"], arm["thinking_loops"], arm["unclosed"]) for arm in arms} == {
        (0, 0, 0)
    }
    assert {arm["mean_tokens"] for arm in arms} == {2.0}


def test_a_sweep_runs_as_many_at_once_as_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    requests = [Request(CHATML.format("Hi"), seed=seed, n_predict=2) for seed in range(8)]
    with open_engine() as engine:
        assert engine.info.kv_numbers
        cache = 256 * engine.info.kv_numbers * 8.5 / 8
        room = engine.info.n_bytes + int(3.5 * cache)
        monkeypatch.setattr(preflight, "count_memory", lambda: room)
        runs = sweep(engine, requests, width=8)
        assert engine._context is not None and engine._context.n_seq == 3
    assert [run.request for run in runs] == requests


def test_the_experiment_asks_another_model_in_its_own_form(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[Request]] = []
    monkeypatch.setattr(
        penalty_and_order, "sweep", lambda _, requests, *a, **b: asked.append(requests)
    )
    run_experiment(engine, quick=True)
    run_experiment(engine)
    monkeypatch.setattr(penalty_and_order, "is_embedded", lambda _: False)
    run_experiment(engine, quick=True)
    arms = {**list_arms(), **list_more_arms()}
    assert asked[0] == plan_requests(QUICK)
    assert asked[1] == plan_requests(FULL, arms=arms)
    assert asked[2] == plan_requests(QUICK, engine.info)
