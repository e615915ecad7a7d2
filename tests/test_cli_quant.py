"""The commands on few bits, as a shell runs them."""

from __future__ import annotations

import json
from pathlib import Path

import bitsandbytes.functional as bnb
import pytest
import tiny_llama
import torch

from qwqlab.cli import main
from qwqlab.models import gguf
from qwqlab.quant import Checkpoint, find_codec, weights
from qwqlab.quant.weights import FolderWeights, GgufWeights


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_llama.make_in_bytes(tmp_path_factory.mktemp("cli") / "tiny model 模型"))


@pytest.mark.parametrize(
    ("model", "n_modules"),
    [
        ("folder", 15),
        pytest.param("model_path", 211, marks=[pytest.mark.slow, pytest.mark.nightly]),
    ],
    ids=["a small folder", "the embedded model"],
)
def test_errors_are_bitsandbytes_own(
    model: str, n_modules: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path, out = Path(request.getfixturevalue(model)), tmp_path / "errors.json"
    assert main(["quant-error", str(path), "--type", "nf4", "--json", str(out)]) == 0
    values = json.loads(out.read_text())
    assert {"modules", "theory", "seconds", "peak_rss_bytes"} <= set(values)
    assert len(values["modules"]) == n_modules
    wanted = {"name", "kind", "layer", "weight_rel_mse", "output_rel_mse", "cosine", "kurtosis",
              "bytes_16bit", "bytes_4bit"}  # fmt: skip
    weights = FolderWeights(Checkpoint(path))
    by_name = {module["name"]: module for module in values["modules"]}
    for linear in weights.linears:
        module = by_name[linear.name]
        assert wanted <= set(module) and module["output_rel_mse"] > 0
        weight = weights.read(linear)
        decoded = bnb.dequantize_4bit(*bnb.quantize_4bit(weight, quant_type="nf4"))
        lost = (weight - decoded).double().square().sum() / weight.double().square().sum()
        assert module["weight_rel_mse"] == pytest.approx(float(lost), abs=1e-6)


def test_a_choice_stays_within_its_budget_and_is_evaluated(folder: str, tmp_path: Path) -> None:
    chosen, judged = tmp_path / "chosen.json", tmp_path / "judged.json"
    assert main(["select", folder, "--extra-percent", "30", "--json", str(chosen)]) == 0
    values = json.loads(chosen.read_text())
    assert values["verified"] is True and values["skip"][-1] == "lm_head"
    assert 0 < values["extra_bytes"] <= 0.3 * values["base_bytes"]
    assert values["objective"] >= values["bound"] > 0 and 4.127 < values["bits_per_weight"] < 8
    assert values["tensor_types"][0] == "--tensor-type"
    args = ["evaluate", folder, "--skip-file", str(chosen), "--json", str(judged)]
    assert main([*args, "--tokens", "1024"]) == 0
    quality = json.loads(judged.read_text())
    assert set(quality["kept"]) == set(values["skip"]) and quality["type"] == "nf4-dq"
    assert quality["kl_mean"] > 0 and quality["top1_agreement"] <= 1
    for name in ("perplexity", "kl_mean", "kl_p99", "top1_agreement"):
        low, high = quality[f"{name}_interval"]
        assert low <= quality[name] <= high


def test_a_ledger_and_an_audit_are_one_object_each(capsys: pytest.CaptureFixture[str]) -> None:
    args = "ledger QwQ-32B --quant nf4 --rank 32 --batch 2 --context 2048".split()
    assert main([*args, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["lines"][0]["part"] == "weights"
    assert round(values["lines"][0]["gb"], 2) == 19.21
    assert main(args) == 0
    assert "19.21 GB" in capsys.readouterr().out
    assert main(["audit", "QwQ-32B", "--json"]) == 0
    assert round(json.loads(capsys.readouterr().out)["gb"], 2) == 19.21
    assert main(["audit", "QwQ-32B"]) == 0
    assert "4.127 bits a weight" in capsys.readouterr().out


def test_what_cannot_be_done_is_one_sentence(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "skip.json").write_text('["model.layers.7"]')
    wrong = [
        ["quant-error", folder, "--type", "int4"],
        ["quant-error", str(tmp_path)],
        ["quant-error", folder, "--tokens", "-5"],
        ["quant-error", folder, "--tokens", "0"],
        ["quant-error", folder, "--json", str(tmp_path / "no" / "out.json")],
        ["select", folder, "--extra-percent", "-3"],
        ["select", folder, "--extra-percent", "9", "--type", "Q4_K"],
        ["select", folder, "--extra-percent", "9", "--metric", "beauty"],
        ["evaluate", folder, "--skip-file", str(tmp_path / "skip.json")],
        ["evaluate", folder, "--tokens", "100"],
        ["ledger", "QwQ-32B", "--quant", "q4"],
        ["ledger", str(tmp_path)],
        ["audit", str(tmp_path / "absent.json")],
    ]
    for args in wrong:
        assert main(args) == 1, args
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert said.startswith("qwqlab: ") and "Traceback" not in said


@pytest.mark.slow
def test_a_variant_holds_the_decoded_weights(model_path: Path, tmp_path: Path) -> None:
    keep = ["model.layers.3.self_attn.v_proj"]
    codec = find_codec("nf4")
    made = weights.write_variant(model_path, tmp_path / "variant.gguf", codec, keep)
    before = GgufWeights(gguf.inspect(model_path))
    after = GgufWeights(gguf.inspect(made))
    for linear in before.linears[:30]:
        weight, found = before.read(linear), after.read(linear)
        wanted = codec.encode(weight).rows(0, linear.n_out)
        kept = linear.name in keep or linear.name == "lm_head"
        assert torch.allclose(found, weight if kept else wanted, rtol=2**-10, atol=1e-6)
