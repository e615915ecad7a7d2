"""The probe: what it shows is what happened, and its replays are what would have happened."""

from __future__ import annotations

import numpy as np
import pytest

from qwqlab.sampling import PRESETS, Engine, Probe, Request, Sampling

SAMPLINGS = {
    "official": PRESETS["official"],
    "article": PRESETS["article"],
    "xtc": Sampling(xtc_probability=0.5, min_p=0),
    "xtc after few candidates": Sampling(xtc_probability=0.5, top_p=0.4),
    "mirostat 1": Sampling(mirostat=1),
    "mirostat 2": Sampling(mirostat=2),
    "adaptive_p": Sampling(samplers=("top_k", "adaptive_p"), adaptive_target=0.5),
    "greedy": Sampling(temp=0),
}


@pytest.fixture(scope="module", params=SAMPLINGS)
def probe(engine: Engine, code_prompt: str, request: pytest.FixtureRequest) -> Probe:
    return Probe.of(engine, Request(code_prompt, SAMPLINGS[request.param], 5, 24))


@pytest.fixture(scope="module")
def official(engine: Engine, code_prompt: str) -> Probe:
    return Probe.of(engine, Request(code_prompt, PRESETS["official"], 5, 60))


def test_a_step_shows_the_token_the_rank_and_the_escape_of_the_run(probe: Probe) -> None:
    for step, (token, rank) in enumerate(zip(probe.run.tokens, probe.run.ranks, strict=True)):
        view = probe.step(step)
        assert (view.token, view.rank) == (token, rank)
        assert view.escape == (step in probe.run.escapes)


def test_a_replay_under_the_runs_own_sampling_is_the_run(probe: Probe) -> None:
    assert tuple(probe.replay(probe.run.request.sampling)) == probe.run.tokens
    assert probe.find_detour(probe.run.request.sampling) is None


def test_the_draw_is_the_number_that_llama_cpp_drew(official: Probe) -> None:
    for step in range(len(official.run.tokens)):
        view = official.step(step)
        last = view.stages[-1]
        before = np.cumsum(last.probs)
        place = int(np.flatnonzero(last.ids == view.token)[0])
        low = before[place - 1] if place else 0.0
        assert view.draw is not None
        assert low - 1e-6 <= view.draw <= before[place] + 1e-6


def test_raw_probabilities_are_the_softmax_of_all_logits(official: Probe) -> None:
    raw = official.step(3).raw
    logits = official.logits[3].astype(np.float64)
    expected = np.exp(logits - logits.max())
    assert len(raw.ids) == len(logits)
    assert np.allclose(raw.probs, (expected / expected.sum())[raw.ids], atol=1e-12)


def test_each_stage_is_named_and_only_removes(official: Probe) -> None:
    view = official.step(0)
    assert tuple(stage.name for stage in view.stages) == PRESETS["official"].chain()
    counts = [len(view.raw.ids), *(len(stage.ids) for stage in view.stages)]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] <= 40
    assert all(abs(stage.probs.sum() - 1) < 1e-9 for stage in view.stages)


def test_the_stage_that_removed_a_token_is_named(official: Probe) -> None:
    view = official.step(0)
    unlikely = view.raw.top(200)[-1]
    assert view.removed_by(unlikely) == "top_k"
    assert view.removed_by(view.token) is None


def test_a_penalty_is_seen_to_move_a_recent_token(official: Probe) -> None:
    step = len(official.run.tokens) - 1
    view = official.step(step, Sampling(repeat_penalty=1.5))
    recent = official.run.tokens[step - 1]
    assert "penalties" in view.moved_by(recent)
    before, after = view.raw.find(recent), view.stages[0].find(recent)
    assert before is not None and after is not None
    expected = before[0] / 1.5 if before[0] > 0 else before[0] * 1.5
    assert after[0] == pytest.approx(expected, rel=1e-6)


def test_a_detour_begins_where_two_real_runs_part(engine: Engine, official: Probe) -> None:
    other = Sampling(**{**PRESETS["official"].to_dict(), "repeat_penalty": 1.5})
    found = official.find_detour(other)
    rerun = engine.generate(official.run.request.prompt, other, 5, 60)
    part = next(
        i for i, (a, b) in enumerate(zip(official.run.tokens, rerun.tokens, strict=False)) if a != b
    )
    assert found is not None and found.step == part
    assert "penalties" in found.why


def test_the_articles_list_never_parts_from_itself_when_its_penalty_rises(
    engine: Engine, code_prompt: str
) -> None:
    probe = Probe.of(engine, Request(code_prompt, PRESETS["article"], 5, 40))
    assert probe.find_detour(PRESETS["article"].with_(repeat_penalty=1.5)) is None


def test_a_temperature_of_0_leaves_the_likeliest_token_alone(official: Probe) -> None:
    view = official.step(3, Sampling(samplers=("temperature", "top_k"), temp=0))
    left = dict(zip(("temperature", "top_k", "dist"), view.stages, strict=True))["temperature"]
    assert left.ids.tolist() == [view.token] == view.raw.top(1)
    assert view.removed_by(view.raw.top(2)[1]) == "temperature"


def test_a_step_outside_the_run_is_refused(official: Probe) -> None:
    with pytest.raises(IndexError, match="step 999"):
        official.step(999)
