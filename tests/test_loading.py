"""Loading: its checks and its flags."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qwqlab.errors import SettingError
from qwqlab.llamacpp import Loading, count_threads, run_tool, tools
from qwqlab.llamacpp.loading import parse_override
from qwqlab.sampling import Engine


def test_a_loading_round_trips_through_json() -> None:
    loading = Loading(n_ctx=512, override_kv=("a=int:1",), rope_scaling="yarn")
    assert Loading(**json.loads(json.dumps(loading.to_dict()))) == loading


def test_defaults_need_no_flag() -> None:
    assert Loading().flags() == []
    assert Loading(flash_attn="off", n_threads=2).flags() == ["-t", "2", "-fa", "off"]


@pytest.mark.parametrize("said", ["", "3", "0", "-1", " 2.9x"])
def test_threads_are_counted_as_llama_completion_counts_them(
    said: str, model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LLAMA_ARG_THREADS", raising=False)
    if said:
        monkeypatch.setenv("LLAMA_ARG_THREADS", said)
    args = ["-m", str(model_path), "-p", "Hello", "-n", "1", "-no-cnv"]
    log = run_tool("llama-completion", args).stderr
    assert f"n_threads = {count_threads()} " in log
    assert Loading(n_threads=1).threads() == 1


@pytest.mark.parametrize("said", ["all", "x2"])
def test_a_variable_that_is_no_number_of_threads_is_refused(
    said: str, model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_ARG_THREADS", said)
    tools._ask_version.cache_clear()
    for ask in (lambda: Engine(model_path), lambda: run_tool("llama-completion", ["--help"])):
        with pytest.raises(SettingError, match=f"LLAMA_ARG_THREADS='{said}' is not a number"):
            ask()


def test_overrides_are_typed() -> None:
    assert parse_override("a.b=int:3") == ("a.b", 3)
    assert parse_override("a=bool:true") == ("a", True)
    assert parse_override("a=str:x=y:z") == ("a", "x=y:z")
    assert parse_override("a=int:3x") == ("a", 3)
    assert parse_override("a=float:0x1p-1") == ("a", 0.5)


@pytest.mark.parametrize(
    "text",
    ["a", "a=int:x", "a=bool:yes", "=int:1", "a=str:b,c", f"a=str:{'x' * 128}"],
)
def test_a_bad_override_is_refused(text: str) -> None:
    with pytest.raises(SettingError, match=f"override_kv='{text}'"):
        Loading(override_kv=(text,))


@pytest.mark.parametrize(
    "changes",
    [{"n_ctx": -1}, {"n_threads": 1000}, {"n_batch": 0}, {"flash_attn": "yes"}, {"n_ctx": 1.5},
     {"rope_freq_base": float("nan")}, {"cache_type_k": "q3"}, {"rope_scaling": "ntk"},
     {"lora": "x.gguf"}],
)  # fmt: skip
def test_a_bad_loading_is_refused_in_one_sentence(changes: dict[str, Any]) -> None:
    with pytest.raises(SettingError) as caught:
        Loading(**changes)
    assert next(iter(changes)) in str(caught.value)


def test_the_two_ways_to_scale_rope_are_not_given_together() -> None:
    with pytest.raises(SettingError, match="give one of the two"):
        Loading(rope_scale=4, rope_freq_scale=0.5)
