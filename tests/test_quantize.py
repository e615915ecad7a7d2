"""The errors of every module: against direct arithmetic, streamed, stopped, resumed, refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import bitsandbytes.functional as bnb
import pytest
import tiny_llama
import torch

from qwqlab.errors import FetchError, ModelFileError, QwqlabError, SettingError
from qwqlab.quant import HEAD, Checkpoint, QuantErrors, find_codec, quant_error
from qwqlab.quant.module_errors import ModuleError, run_through
from qwqlab.quant.weights import FolderWeights


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny untied model in several shards."""
    return tiny_llama.make_in_bytes(tmp_path_factory.mktemp("tiny"), shard="200KB")


@pytest.fixture(autouse=True)
def empty_journal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is known from an earlier run."""
    kept = tmp_path / "models"
    kept.mkdir()
    monkeypatch.setattr("qwqlab.quant.journal.paths.models_dir", lambda: kept)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A text of some 360 tokens."""
    path = tmp_path / "text.txt"
    path.write_text("Write a Python function that reverses a string, and say why. " * 6)
    return path


def run(folder: Path, tokens: torch.Tensor, codec: str = "nf4") -> dict[str, ModuleError]:
    found: list[ModuleError] = []
    run_through(FolderWeights(Checkpoint(folder)), find_codec(codec), tokens, found.append)
    return {error.name: error for error in found}


def test_every_module_is_what_direct_arithmetic_gives(folder: Path) -> None:
    tokens = torch.arange(240).view(2, 120)
    errors = run(folder, tokens)
    model = Checkpoint(folder).load()
    inputs: dict[str, torch.Tensor] = {}
    for name in errors:
        model.get_submodule(name).register_forward_pre_hook(
            lambda _m, x, name=name: inputs.update({name: x[0].flatten(0, 1)})
        )
    with torch.no_grad():
        model(tokens)
    assert len(errors) == 15
    for name, error in errors.items():
        weight = model.get_submodule(name).weight.detach().double()
        packed, state = bnb.quantize_4bit(weight.float(), quant_type="nf4")
        decoded = bnb.dequantize_4bit(packed, state).double()
        lost = (weight - decoded).square().sum() / weight.square().sum()
        assert error.weight_rel_mse == pytest.approx(float(lost), abs=1e-6)
        x = inputs[name].double()
        outputs = (x @ (weight - decoded).T).square().sum() / (x @ weight.T).square().sum()
        assert error.output_rel_mse == pytest.approx(float(outputs), rel=1e-4)
        cosine = torch.cosine_similarity(weight.flatten(), decoded.flatten(), 0)
        assert error.cosine == pytest.approx(float(cosine), abs=5e-6)
        centred = weight - weight.mean()
        kurtosis = centred.pow(4).mean() / centred.square().mean().square()
        assert error.kurtosis == pytest.approx(float(kurtosis), rel=1e-4)
        largest = weight.abs().max() / weight.square().mean().sqrt()
        assert error.outlier_ratio == pytest.approx(float(largest), rel=1e-4)
        assert error.bytes_16bit == 2 * weight.numel()
        assert error.n_bytes == packed.numel() + 4 * weight.numel() // 64


def test_memory_never_holds_the_linear_modules(folder: Path) -> None:
    weights = FolderWeights(Checkpoint(folder))
    run_through(weights, find_codec("nf4"), torch.arange(64).view(1, 64), lambda _error: None)
    for name, parameter in weights.model.named_parameters():
        assert parameter.is_meta == (not name.endswith(("norm.weight", "bias"))), name


def test_a_pass_that_was_stopped_or_killed_goes_on(
    folder: Path, text: Path, tmp_path: Path
) -> None:
    seen: list[str] = []

    def measure(stop: int = 99) -> QuantErrors:
        return quant_error(
            folder,
            text=text,
            on_module=lambda _d, _n, error: seen.append(error.name),
            stop=lambda: len(seen) == stop,
        )

    first = measure(stop=4)
    assert not first.whole and len(first.modules) == 4
    whole = measure()
    assert whole.whole and len(seen) == len(set(seen)) == 15
    assert measure().modules == whole.modules and len(seen) == 15
    fresh = run(folder, Checkpoint(folder).read_blocks(text, 2048))
    assert {e.name: e for e in whole.modules} == fresh
    # A line that was cut short as by a kill is measured again.
    (path,) = (tmp_path / "models").rglob("*.jsonl")
    path.write_text(path.read_text()[:-200])
    assert measure().modules == whole.modules and len(seen) == 16
    values = json.loads(json.dumps(whole.to_dict()))
    assert values["modules"][0]["bytes_4bit"] == whole.modules[0].n_bytes
    assert {"shannon_4bit", "lloyd_max_16", "nf4_gaussian"} <= set(values["theory"])
    assert values["peak_rss_bytes"] > 10**8 and values["seconds"] > 0


def test_another_text_or_model_is_another_result(folder: Path, text: Path, tmp_path: Path) -> None:
    first = quant_error(folder, text=text)
    other = tmp_path / "other.txt"
    other.write_text("Nothing of the kind stands here, 1 2 3 4 5. " * 9)
    assert quant_error(folder, text=other).modules[0] != first.modules[0]
    changed = tiny_llama.make_in_bytes(tmp_path / "changed", intermediate_size=256)
    alone = quant_error(changed, outputs=False)  # needs no text
    assert alone.whole and alone.n_tokens == 0 and alone.modules[4].n_out == 256
    assert all(error.output_rel_mse is None for error in alone.modules)


def test_a_tied_head_is_a_module_too(tmp_path: Path) -> None:
    tied = tiny_llama.make_in_bytes(tmp_path / "tied", tie_word_embeddings=True)
    errors = run(tied, torch.arange(40).view(1, 40))
    assert HEAD in errors and len(errors) == 15
    weights = FolderWeights(Checkpoint(tied))
    head = next(linear for linear in weights.linears if linear.name == HEAD)
    assert torch.equal(weights.read(head), weights.tensor("model.embed_tokens.weight"))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "config.json").unlink(),
        lambda folder: (folder / "config.json").write_text("{"),
        lambda folder: (folder / "config.json").write_text('{"model_type": "nonsense"}'),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 1000),
        lambda folder: (folder / "model.safetensors").write_bytes(
            (folder / "model.safetensors").read_bytes()[:-1000]
        ),
    ],
)
def test_a_spoilt_folder_is_refused_in_a_sentence(tmp_path: Path, spoil: Any) -> None:
    folder = tiny_llama.make_in_bytes(tmp_path / "model")
    spoil(folder)
    with pytest.raises(ModelFileError) as caught:
        quant_error(folder, outputs=False)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_numbers_that_are_not_finite_are_named(tmp_path: Path) -> None:
    model = Checkpoint(tiny_llama.make_in_bytes(tmp_path / "model")).load()
    model.model.layers[1].mlp.up_proj.weight.data[3, 5] = math.nan
    model.save_pretrained(tmp_path / "spoilt")
    with pytest.raises(ModelFileError, match=r"layers\.1\.mlp\.up_proj"):
        quant_error(tmp_path / "spoilt", outputs=False)


def test_what_cannot_be_used_is_refused(folder: Path, tmp_path: Path, text: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin.txt").write_bytes(b"\xe9" * 5000)
    refused: list[tuple[type[QwqlabError], dict[str, Any]]] = [
        (FetchError, {"model": tmp_path / "absent.gguf"}),
        (SettingError, {"model": folder, "codec": "nf5"}),
        (SettingError, {"model": folder, "text": tmp_path / "empty.txt"}),
        (SettingError, {"model": folder, "text": tmp_path / "latin.txt"}),
        (SettingError, {"model": folder, "text": tmp_path / "absent.txt"}),
        (SettingError, {"model": folder, "text": text, "n_tokens": 0}),
    ]
    for error, args in refused:
        with pytest.raises(error):
            quant_error(**args)
