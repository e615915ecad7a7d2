"""A request in vLLM's terms: nothing sent that it does not know, nothing lost without a word."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from qwqlab.errors import ClusterError
from qwqlab.experiments import complete_on_vllm, translate_for_vllm
from qwqlab.sampling import PRESETS, Request, Sampling

# What CompletionRequest of vLLM 0.33.0 takes, of what the lab could mean to send.
TAKEN = {"model", "prompt", "max_tokens", "seed", "temperature", "top_k", "top_p", "min_p",
         "repetition_penalty", "frequency_penalty", "presence_penalty"}  # fmt: skip


@pytest.mark.parametrize("name", PRESETS)
def test_every_setting_is_sent_or_noted(name: str) -> None:
    sampling = PRESETS[name]
    found = translate_for_vllm(Request("Hello", sampling, 7, 99))
    assert set(found.body) == TAKEN  # all of them, or generation_config.json would fill in
    assert (found.body["prompt"], found.body["seed"], found.body["max_tokens"]) == ("Hello", 7, 99)
    assert found.body["temperature"] == sampling.temp
    assert any("dry_multiplier" in note for note in found.notes) == (sampling.dry_multiplier > 0)
    for cut in ("top_k", "top_p", "min_p"):
        assert found.body[cut] == getattr(sampling, cut)
    assert any("seed" in note for note in found.notes)
    assert any(note.startswith("the order is vLLM's") for note in found.notes)
    has_penalty = "penalties" in sampling.samplers and sampling.repeat_penalty != 1
    assert found.body["repetition_penalty"] == (sampling.repeat_penalty if has_penalty else 1.0)


def test_a_setting_without_effect_is_not_sent() -> None:
    absent = Sampling(samplers=("temperature",), top_k=5, repeat_penalty=1.5, temp=0.7)
    body = translate_for_vllm(Request("a", absent)).body
    assert body["top_k"] == 0 and body["repetition_penalty"] == 1.0 and body["temperature"] == 0.7
    no_window = PRESETS["official"].with_(repeat_penalty=1.5, repeat_last_n=0)
    assert translate_for_vllm(Request("a", no_window)).body["repetition_penalty"] == 1.0


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"mirostat": 2}, "mirostat=2 is left out"),
        ({"top_n_sigma": 1.0}, "top_n_sigma=1 is left out"),
        ({"ignore_eos": True}, "biases of tokens are left out"),
        ({"repeat_penalty": 1.1}, "penalties see the whole text, not the last 64 tokens"),
    ],
)
def test_what_vllm_does_otherwise_is_noted(changes: dict[str, Any], note: str) -> None:
    plain = translate_for_vllm(Request("a", PRESETS["official"])).notes
    changed = translate_for_vllm(Request("a", PRESETS["official"].with_(**changes))).notes
    assert any(each.startswith(note) for each in changed), changed
    assert not any(each.startswith(note) for each in plain)


def test_greedy_decoding_is_the_same_in_both() -> None:
    assert translate_for_vllm(Request("a", PRESETS["official"].with_(temp=0.0))).notes == ()


def test_no_limit_is_as_much_as_the_server_holds() -> None:
    assert translate_for_vllm(Request("a", n_predict=-1), context=4096).body["max_tokens"] == 4096


@contextmanager
def serve(status: int, answer: bytes) -> Iterator[tuple[str, list[Any]]]:
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            asked.append((self.path, json.loads(self.rfile.read(length))))
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def test_the_client_asks_for_a_completion() -> None:
    body = translate_for_vllm(Request("Hello", PRESETS["official"])).body
    with serve(200, b'{"choices": [{"text": " there"}]}') as (url, asked):
        assert complete_on_vllm(url + "/", body) == " there"
    assert asked == [("/v1/completions", body)]


@pytest.mark.parametrize(
    ("status", "answer", "says"),
    [
        (400, b'{"message": "top_k must be -1"}', "refused the request: .*top_k must be -1"),
        (200, b"<html>", "is no server of completions"),
        (200, b'{"choices": []}', "is no server of completions"),
    ],
)
def test_an_answer_that_is_none_is_one_sentence(status: int, answer: bytes, says: str) -> None:
    with serve(status, answer) as (url, _), pytest.raises(ClusterError, match=says):
        complete_on_vllm(url, {})


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "nonsense", "http://["])
def test_a_server_that_does_not_answer_is_one_sentence(url: str) -> None:
    with pytest.raises(ClusterError, match="no server answers at"):
        complete_on_vllm(url, {}, timeout=2)
