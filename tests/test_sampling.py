"""Sampling: its checks, its presets, and what it says of settings that do nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from qwqlab.errors import SettingError
from qwqlab.sampling import (
    ARTICLE_ORDER,
    DEFAULT_ORDER,
    PRESETS,
    SETTINGS,
    Engine,
    Sampling,
    preset,
)


def test_the_defaults_are_those_of_llama_completion(llama_completion_help: dict[str, str]) -> None:
    for setting in SETTINGS:
        text = llama_completion_help[setting.flags[0]]
        default = getattr(Sampling(), setting.name)
        assert f"default: {default:g}" in text.replace(".00", "").replace("0,", "0 ,") or (
            f"default: {default:.2f}" in text
        ), (setting.name, text)


def test_the_default_order_is_that_of_llama_completion(
    llama_completion_help: dict[str, str],
) -> None:
    assert ";".join(DEFAULT_ORDER) in llama_completion_help["--samplers"]


def test_a_sampling_round_trips_through_json() -> None:
    for sampling in PRESETS.values():
        assert Sampling.from_dict(json.loads(json.dumps(sampling.to_dict()))) == sampling


def test_names_are_read_as_llama_cpp_reads_them() -> None:
    assert Sampling(samplers=("top-k", "nucleus", "TEMP", "minp")).samplers == (
        "top_k",
        "top_p",
        "temperature",
        "min_p",
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"temp": math.nan}, "temp=nan is out of range; give 0 to the largest float"),
        ({"temp": -0.1}, "temp=-0.1 is out of range"),
        ({"top_p": 1.2}, "top_p=1.2 is out of range; give 0 to 1"),
        ({"repeat_penalty": 0}, "repeat_penalty=0 is out of range"),
        ({"repeat_penalty": math.inf}, "out of range"),
        ({"top_k": 4.5}, "not a whole number"),
        ({"top_k": 2**31}, "out of range"),
        ({"top_k": True}, "not a number"),
        ({"min_p": "0.1"}, "not a number"),
        ({"dry_base": 0.5}, "dry_base=0.5 is out of range"),
        ({"mirostat": 3}, "mirostat=3 is out of range"),
        ({"samplers": ("top_q",)}, "'top_q' is not a sampler of llama.cpp"),
        ({"samplers": ("dry", "top_k", "dry")}, "'dry' is in the order twice"),
        ({"dry_sequence_breakers": ("",)}, "not empty"),
        ({"logit_bias": "5+1"}, "must be a list of strings"),
        ({"logit_bias": 5}, "must be a list of strings"),
        ({"dry_sequence_breakers": 5}, "must be a list of strings"),
        ({"logit_bias": ("9999999999+1",)}, "is not TOKEN_ID+BIAS"),
        ({"warmth": 1}, "'warmth' is not a sampling setting"),
    ],
)
def test_a_bad_setting_is_named_in_one_sentence(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError) as caught:
        Sampling().with_(**changes)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(SettingError, match="official"):
        preset("articl")


def test_the_articles_list_ignores_repeat_penalty() -> None:
    assert preset("article").inert() == (
        "repeat_penalty=1.1 has no effect: `penalties` is not in the order",
    )
    assert preset("article_with_penalties").inert() == ()
    assert preset("article_without_fix").inert() == ()


def test_a_setting_that_is_off_by_choice_is_not_called_inert() -> None:
    assert Sampling().inert() == ()
    assert Sampling(samplers=ARTICLE_ORDER).inert() == ()


INERT = [
    # (a Sampling, the setting that must be named, its neutral value)
    (preset("article"), "repeat_penalty", 1.0),
    (Sampling(repeat_penalty=1.3, repeat_last_n=0), "repeat_penalty", 1.0),
    (Sampling(presence_penalty=0.5, repeat_last_n=0), "presence_penalty", 0.0),
    (Sampling(dry_base=3.0), "dry_base", 1.75),
    (Sampling(dry_multiplier=0.8, dry_penalty_last_n=0), "dry_multiplier", 0.0),
    (Sampling(xtc_probability=0.5, xtc_threshold=0.6), "xtc_probability", 0.0),
    (Sampling(samplers=("top_k", "temperature"), min_p=0.2), "min_p", 0.0),
    (Sampling(samplers=("top_k",), temp=0.3), "temp", 1.0),
    (Sampling(temp=0), "top_k", 0),
    (Sampling(temp=0, repeat_penalty=1.3), "top_p", 1.0),
    (Sampling(samplers=("temperature", "typ_p", "dry"), temp=0, typ_p=0.5), "typ_p", 1.0),
    (Sampling(top_k=1, typ_p=0.4), "typ_p", 1.0),
    (Sampling(mirostat=2, top_p=0.3), "top_p", 1.0),
    (Sampling(mirostat=1, dynatemp_range=0.4), "dynatemp_range", 0.0),
    (Sampling(dynatemp_exp=2.0), "dynatemp_exp", 1.0),
    (Sampling(mirostat_ent=3.0), "mirostat_ent", 5.0),
]


@pytest.fixture(scope="module")
def draw(engine: Engine, code_prompt: str) -> Callable[[Sampling], tuple[int, ...]]:
    """A function that draws 32 tokens under a Sampling, once for each."""
    return cache(lambda sampling: engine.generate(code_prompt, sampling, 5, 32).tokens)


@pytest.mark.parametrize(("sampling", "name", "neutral"), INERT)
def test_what_is_called_inert_changes_no_token(
    draw: Callable[[Sampling], tuple[int, ...]], sampling: Sampling, name: str, neutral: Any
) -> None:
    assert any(sentence.startswith(f"{name}=") for sentence in sampling.inert())
    assert draw(sampling) == draw(sampling.with_(**{name: neutral}))


ACTIVE = [
    (Sampling(temp=0, dynatemp_range=1.0), "top_k"),
    (Sampling(samplers=("top_k", "penalties", "temperature"), temp=0, repeat_penalty=2), "top_k"),
    (Sampling(repeat_penalty=1.1), "repeat_penalty"),
    (Sampling(mirostat=2, temp=0.4), "temp"),
]


@pytest.mark.parametrize(("sampling", "name"), ACTIVE)
def test_a_setting_that_may_act_is_not_called_inert(sampling: Sampling, name: str) -> None:
    assert not any(sentence.startswith(f"{name}=") for sentence in sampling.inert())
