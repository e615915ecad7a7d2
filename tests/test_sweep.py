"""Sweeps: resumed where they stopped, reproduced by their commands, counted arm by arm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from qwqlab.engine import Engine
from qwqlab.errors import SettingError
from qwqlab.experiment import LOADING, Plan, count, list_arms, plan_requests, summarize
from qwqlab.experiment import QUICK as PLAN
from qwqlab.metrics import difference
from qwqlab.records import Request
from qwqlab.requantize import sweep_copy
from qwqlab.runs import RunStore
from qwqlab.sampling import PRESETS
from qwqlab.sweep import sweep


@pytest.fixture(scope="module")
def sweep_engine(model_path: Path) -> Iterator[Engine]:
    with Engine(sweep_copy(model_path), LOADING) as engine:
        yield engine


def test_a_sweep_goes_on_where_it_stopped(
    sweep_engine: Engine, code_prompts: list[str], tmp_path: Path
) -> None:
    requests = [Request(p, PRESETS["official"], s, 24) for p in code_prompts for s in (1, 2)]
    ran = []
    with RunStore(tmp_path / "runs.sqlite") as store:
        sweep(sweep_engine, requests[:4], store, on_run=lambda *event: ran.append(event))
        assert len(ran) == 4
        runs = sweep(sweep_engine, requests, store, on_run=lambda *event: ran.append(event))
        assert len(ran) == len(requests)
        kept = list(store.runs(experiment="sweep"))
    assert [run.request for run in runs] == requests
    assert {k.run.tokens for k in kept} == {run.tokens for run in runs}
    assert all(k.command.startswith("llama-completion --model ") for k in kept)
    assert [run.tokens for run in runs] == [run.tokens for run in sweep(sweep_engine, requests)]


def test_every_arm_has_its_runs_and_shares_prompts_and_seeds_with_the_others() -> None:
    requests = plan_requests(PLAN)
    arms = {name: [r for r in requests if r.label.startswith(f"{name} | ")] for name in list_arms()}
    asked = {name: [(r.prompt, r.seed, r.n_predict) for r in arm] for name, arm in arms.items()}
    assert len({tuple(each) for each in asked.values()}) == 1
    assert sum(len(arm) for arm in arms.values()) == len(requests)


def test_the_articles_list_gives_the_same_texts_at_both_penalties(sweep_engine: Engine) -> None:
    wanted = ("article's list, 1.1 | code", "article's list, 1.5 | code")
    requests = [r for r in plan_requests(PLAN) if r.label in wanted]
    short = [replace(r, n_predict=40) for r in requests]
    texts: dict[str, list[str]] = {label: [] for label in wanted}
    for run in sweep(sweep_engine, short):
        texts[run.request.label].append(run.text)
    assert len(texts[wanted[0]]) == PLAN.code_prompts * PLAN.code_seeds
    assert texts[wanted[0]] == texts[wanted[1]]


def test_a_prompt_that_no_command_can_hold_is_refused_before_anything_runs(
    sweep_engine: Engine,
) -> None:
    with pytest.raises(SettingError, match="NUL"):
        sweep(sweep_engine, [Request("a\0b", n_predict=1)])


def test_differences_are_newcombes() -> None:
    low, high = difference(56, 70, 48, 80)
    assert (round(low, 4), round(high, 4)) == (0.0524, 0.3339)


def test_the_sentences_say_what_the_counts_say(sweep_engine: Engine) -> None:
    short = [replace(r, n_predict=20) for r in plan_requests(Plan(1, 1, 20, 1, 1, 20))]
    results = count(sweep(sweep_engine, short))
    assert all(arm.runs == arm.long_runs == 1 for arm in results)
    text = summarize(results)
    assert f"{results[0].valid_code} of 1 programs" in text
    assert "article's list: 1.1 and 1.5 gave identical texts." in text
    assert "no difference that these runs can show" in text
