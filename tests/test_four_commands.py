"""The article's four commands: what fits runs, what does not is left out with a sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from qwqlab import paths
from qwqlab.errors import FetchError, ModelFileError
from qwqlab.grader import choose_length, four_commands, list_arms, run_arms
from qwqlab.llamacpp import Loading
from qwqlab.models import inspect, room


def set_room(monkeypatch: pytest.MonkeyPatch, ram: int, card: int = 0) -> None:
    """Let this much memory be free."""
    monkeypatch.setattr(room, "measure_room", lambda: room.Room(card, ram))


def refuse(*_: object) -> NoReturn:
    """Stand for what must not be called."""
    pytest.fail("it was called")


@pytest.fixture(autouse=True)
def runs_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "runs_dir", lambda: tmp_path)


def test_an_arm_without_memory_is_left_out_and_no_copy_is_made_for_it(
    model_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_room(monkeypatch, 260_000_000)  # the model takes 213 MB, its copy 384
    monkeypatch.setattr(four_commands, "requantize", refuse)
    transcripts = run_arms(model_path, 2, Loading(device="none"))
    assert [t.arm for t in transcripts] == list(list_arms("Q4_1")[:3])
    assert all(t.path.read_text(encoding="utf-8") == t.run.text for t in transcripts)
    said = capsys.readouterr().out
    assert "Left out: 16-bit copy of Q4_1 weights. a BF16 copy of SmolLM2" in said
    assert "260.0 MB are free" in said


def test_what_does_not_fit_costs_no_other_arm(
    model_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_room(monkeypatch, 5_000_000)
    assert run_arms(model_path, 16_000) == []
    said = capsys.readouterr().out
    assert "Left out: with the fix, without the fix, repeat penalty 1.5. SmolLM2" in said
    assert "MB of memory with 16,512 tokens, and 5.0 MB are free; take a smaller" in said


def test_a_cards_memory_counts_where_layers_may_go_there(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_room(monkeypatch, ram=50_000_000, card=1 << 30)
    info = inspect(model_path)
    assert four_commands._prepare(model_path, info, 600, Loading()) == model_path
    with pytest.raises(ModelFileError, match=r"50\.0 MB are free"):
        four_commands._prepare(model_path, info, 600, Loading(device="none"))


def test_full_precision_is_the_models_own_and_a_copy_is_called_a_copy(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def find(name: str) -> Path:
        asked.append(name)
        return Path("BF16-00001-of-00002.gguf")

    monkeypatch.setattr(four_commands, "model_path", find)
    info = inspect(model_path)
    assert four_commands._find_whole(info) is None and not asked
    qwq = replace(info, metadata={**info.metadata, "general.name": "QwQ 32B"})
    assert four_commands._find_whole(qwq) == Path("BF16-00001-of-00002.gguf")
    assert asked == ["QwQ-32B:BF16"]

    def miss(name: str) -> Path:
        raise FetchError(f"{name} is not here")

    monkeypatch.setattr(four_commands, "model_path", miss)
    assert four_commands._find_whole(qwq) is None
    last = list_arms("Q4_K_M", whole=False)[3]
    assert (last.name, last.quant) == ("16-bit copy of Q4_K_M weights", "BF16")
    assert last.filename != list_arms("Q4_K_M")[3].filename == "BF16_no_samplers.txt"


def test_16_000_tokens_begin_on_a_cpu_only_when_asked_for(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    qwq: Any = tmp_path / "QwQ-32B-Q4_K_M.gguf"
    qwq.symlink_to(model_path)
    for gpu in (False, True):
        monkeypatch.setattr(four_commands, "has_gpu", lambda gpu=gpu: gpu)
        assert choose_length(qwq) == (16_000 if gpu else 1200)
        assert choose_length(qwq, long_on_cpu=True) == 16_000
        assert choose_length(model_path, long_on_cpu=True) == 1200
