"""Outcomes of arms: kept, read, compared; and the evidence that ships held to runs made again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from test_plots import make_arm

from qwqlab.errors import SettingError
from qwqlab.experiments import (
    MEASURES,
    ArmResult,
    Evidence,
    compare,
    count_arms,
    list_arms,
    list_evidence,
    list_more_arms,
    open_engine,
    plan_requests,
    read_evidence,
    sweep,
)
from qwqlab.experiments.penalty_and_order import FULL
from qwqlab.sampling import Engine, Request
from qwqlab.stats import resample, wilson

TABLE = "smollm2-135m"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with open_engine(exact=True) as engine:
        yield engine


def test_an_arm_goes_to_json_and_back() -> None:
    arm = make_arm("strong", 3, 2)
    values = arm.to_dict()
    assert ArmResult.from_dict(values) == arm
    assert values["rates"]["right"]["count"] == 3 and values["rates"]["loops"]["n"] == 10


def test_two_arms_are_compared_run_by_run_and_not_rate_by_rate() -> None:
    base, arm = make_arm("base", 10), make_arm("arm", 8)
    same = compare(arm, base, "right")  # the first eight are right in both
    assert (same.before, same.after, same.lost, same.gained) == (10, 8, 2, 0)
    moved = replace(arm, outcomes={**arm.outcomes, "right": "0" * 12 + "1" * 8})
    other = compare(moved, base, "right")  # as many are right, and none of the same
    assert (other.lost, other.gained) == (10, 8)
    width = [high - low for low, high in (same.interval, other.interval)]
    assert width[0] < width[1]


def test_an_interval_is_wider_where_runs_of_a_prompt_are_alike() -> None:
    outcomes = [True] * 24 + [False] * 24
    apart = resample(outcomes, range(48))
    alike = resample(outcomes, [place // 4 for place in range(48)])
    assert alike[0] < apart[0] < 0.5 < apart[1] < alike[1]
    assert apart == pytest.approx(wilson(24, 48), abs=0.02)


def test_a_model_without_evidence_is_said_with_those_that_have_some() -> None:
    with pytest.raises(SettingError, match=f"no evidence on 'qwq'; there is on .*{TABLE}"):
        read_evidence("qwq")


def test_the_evidence_is_of_every_arm_with_intervals_of_ten_points() -> None:
    found = read_evidence(TABLE)
    assert [arm.name for arm in found.arms] == [*list_arms(), *list_more_arms()]
    assert found in list_evidence("code")
    for arm in found.arms:
        for name in ("valid", "right"):
            low, high = arm.rate(name).interval
            assert arm.rate(name).n == FULL.code.prompts and (high - low) / 2 <= 0.10, arm.name
        for name, outcomes in arm.outcomes.items():
            kind = MEASURES[name].kind
            assert len(outcomes) == len(arm.prompts[kind]) == len(arm.texts[kind])


def pick(found: Evidence, kind: str, names: tuple[str, ...], n: int) -> list[Request]:
    """The first n runs of some arms."""
    arms = {arm.name: arm.sampling for arm in found.arms if arm.name in names}
    part = replace(getattr(FULL, kind), prompts=n)
    return plan_requests(replace(type(FULL)(), **{kind: part}), arms=arms)


def test_runs_of_the_evidence_made_again_are_what_the_table_says(engine: Engine) -> None:
    found = read_evidence(TABLE)
    strong, names = (
        "llama.cpp order, 1.5",
        ("greedy", "llama.cpp order, 1.5", "article's list, 1.1"),
    )
    requests = [*pick(found, "code", names, 6), *pick(found, "copy", names, 4)]
    again = {arm.name: arm for arm in count_arms(sweep(engine, requests))}
    now = Evidence.of(engine, tuple(again.values()))
    here = (now.model_sha256, now.build, now.machine)
    told = {arm.name: arm for arm in found.arms}
    for name, arm in again.items():
        if here == (found.model_sha256, found.build, found.machine):
            for kind, texts in arm.texts.items():
                assert texts == told[name].texts[kind][: len(texts)]
            for measure, outcomes in arm.outcomes.items():
                assert outcomes == told[name].outcomes[measure][: len(outcomes)]
        # Elsewhere the texts are others, and rates are to agree as far as six runs can tell.
        low, high = told[name].rate("valid").interval
        valid = wilson(arm.rate("valid").count, 6)
        assert low <= valid[1] and valid[0] <= high, name
    assert again[strong].rate("valid").count == 0
