"""Sweeps: resumed where they stopped, reproduced by their commands, counted arm by arm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from qwqlab.errors import SettingError
from qwqlab.experiments import (
    LOADING,
    Grid,
    Part,
    RunStore,
    count_arms,
    list_arms,
    metrics,
    plan_requests,
    summarize,
    sweep,
)
from qwqlab.experiments.penalty_and_order import QUICK
from qwqlab.models import sweep_copy
from qwqlab.sampling import PRESETS, Engine, Request, Run


@pytest.fixture(scope="module")
def sweep_engine(model_path: Path) -> Iterator[Engine]:
    with Engine(sweep_copy(model_path), LOADING) as engine:
        yield engine


def test_a_sweep_goes_on_where_it_stopped(
    sweep_engine: Engine, code_prompts: list[str], tmp_path: Path
) -> None:
    requests = [Request(p, PRESETS["official"], s, 12) for p in code_prompts for s in (1, 2)]
    ran = []
    with RunStore(tmp_path / "runs.sqlite") as store:
        sweep(sweep_engine, requests[:4], store, on_run=lambda *event: ran.append(event))
        assert len(ran) == 4
        runs = sweep(sweep_engine, requests, store, on_run=lambda *event: ran.append(event))
        assert len(ran) == len(requests)
        kept = list(store.runs())
    assert [run.request for run in runs] == requests
    assert {k.run.tokens for k in kept} == {run.tokens for run in runs}
    assert all(k.command.startswith("llama-completion --model ") for k in kept)
    assert [run.tokens for run in runs] == [run.tokens for run in sweep(sweep_engine, requests)]


def test_every_arm_has_its_runs_and_shares_prompts_and_seeds_with_the_others() -> None:
    requests = plan_requests(QUICK)
    arms = {name: [r for r in requests if r.label.startswith(f"{name} | ")] for name in list_arms()}
    asked = {name: [(r.prompt, r.seed, r.n_predict) for r in arm] for name, arm in arms.items()}
    assert len({tuple(each) for each in asked.values()}) == 1
    assert sum(len(arm) for arm in arms.values()) == len(requests)


def test_a_prompt_that_no_command_can_hold_is_refused_before_anything_runs(
    sweep_engine: Engine,
) -> None:
    with pytest.raises(SettingError, match="NUL"):
        sweep(sweep_engine, [Request("a\0b", n_predict=1)])


def test_the_sentences_say_what_the_counts_say(sweep_engine: Engine) -> None:
    results = count_arms(sweep(sweep_engine, plan_requests(Grid(Part(1, 1, 8), Part(1, 1, 8)))))
    assert all({len(each) for each in arm.outcomes.values()} == {1} for arm in results)
    text = summarize(results)
    assert f"{results[0].rate('valid').count} of 1 programs are valid" in text
    assert "article's list: 1.1 and 1.5 gave identical texts." in text
    assert "no difference that these runs can show" in text


def test_a_run_is_measured_once_and_a_stored_one_never_again(
    sweep_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[Run] = []
    measure = metrics._measure

    def count(run: Run) -> metrics.RunMetrics:
        measured.append(run)
        return measure(run)

    monkeypatch.setattr(metrics, "_measure", count)
    requests = [r for r in plan_requests(Grid(Part(1, 1, 4))) if r.label.startswith("greedy")]
    with RunStore(tmp_path / "runs.sqlite") as store:
        found = count_arms(sweep(sweep_engine, requests, store))
        assert len(measured) == len(requests) == 1
        assert count_arms(sweep(sweep_engine, requests, store)) == found
    with RunStore(tmp_path / "runs.sqlite") as store:
        assert count_arms(sweep(sweep_engine, requests, store)) == found
    assert len(measured) == 1
