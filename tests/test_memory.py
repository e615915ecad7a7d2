"""Sizes: what was published of QwQ-32B, and what a real load takes here."""

from __future__ import annotations

import json
from pathlib import Path

import peft
import pytest
import tiny_llama
import torch

from qwqlab.errors import ModelFileError, SettingError
from qwqlab.experiments import vllm_command
from qwqlab.models import lookup
from qwqlab.quant import (
    BnbCodec,
    Checkpoint,
    audit,
    bits_per_weight,
    fit_vllm,
    ledger,
    load_quantised,
    read_shapes,
)
from qwqlab.quant.memory import GIB, Ledger, Shapes


@pytest.fixture(scope="module")
def qwq() -> Shapes:
    return read_shapes("qwq-32b")


def parts(found: Ledger) -> dict[str, int]:
    return {line.part: line.n_bytes for line in found.lines}


def test_qwq_takes_what_is_known_of_it(qwq: Shapes) -> None:
    found = parts(ledger(qwq))
    assert found["weights"] / 1e9 == pytest.approx(19.21, abs=0.005)
    assert found["weights"] / 2**30 == pytest.approx(17.89, abs=0.005)
    assert found["LoRA adapters"] == 4 * 268_435_456 == found["gradients"]
    assert found["KV cache"] == 2 * 2048 * 262_144
    assert parts(ledger(qwq, "bf16"))["weights"] == 2 * 32_763_876_352


def test_totals_are_sums_of_their_lines(qwq: Shapes) -> None:
    found = ledger(qwq, rank=16, batch=1, context=512)
    values = json.loads(json.dumps(found.to_dict()))
    for when in ("training", "generating"):
        lines = [line for line in values["lines"] if line["when"] in ("always", when)]
        assert values["totals"][when]["n_bytes"] == sum(line["n_bytes"] for line in lines)
    assert {line["basis"] for line in values["lines"]} == {"computed", "assumed"}
    assert all(line["how"] for line in values["lines"])


def test_each_mlp_in_16_bits_adds_its_part(qwq: Shapes) -> None:
    kept = 3 * 5120 * 27648
    grown = parts(ledger(qwq, kept=kept))["weights"] - parts(ledger(qwq))["weights"]
    assert grown / 1e9 == pytest.approx(0.630, abs=0.001)


def test_an_audit_counts_what_was_published_of_qwq(qwq: Shapes) -> None:
    assert qwq.n_parameters == 32_763_876_352
    naive = audit(qwq)
    assert naive.n_bytes / 1e9 == pytest.approx(19.21, abs=0.005)
    assert naive.bits_per_weight == pytest.approx(4.127, abs=5e-4)
    one = audit(qwq, ["lm_head", "model.layers.5.mlp"])
    assert (one.n_bytes - naive.n_bytes) / 1e9 == pytest.approx(0.630, abs=0.001)
    assert len(one.kept) == 3 and one.extra == pytest.approx(0.0328, abs=1e-4)
    single = audit(qwq, None, double=False)
    assert single.bits_per_weight == 4.5
    headless = audit(qwq, [])
    assert not headless.head_kept and headless.n_bytes < naive.n_bytes
    assert "4 bits" in headless.as_text()
    dead = audit(qwq, ["lm_head", "layers.0"])
    assert "'layers.0' fits no linear module" in dead.as_text()


def test_vllm_on_a_card_of_24_gb_has_room_for_the_context_of_its_command(qwq: Shapes) -> None:
    dynamic, naive = (lookup(f"QwQ-32B:{name}-4bit").n_bytes for name in ("dynamic", "bnb"))
    # 95 % of 24 GiB, less the weights, 5120 x 27648 decoded weights, 512 tokens of activations and
    # 0.6 GB for CUDA: 0.72 GB are left for tokens of 262,144 bytes.
    rest = 2 * 5120 * 27648 + 512 * 2 * (6 * 5120 + 5 * 27648) + 600_000_000
    by_hand = (int(0.95 * 24 * GIB) - dynamic - rest) // 262_144
    assert 0 <= by_hand - fit_vllm(qwq, dynamic) < 256
    assert f"--max-model-len {fit_vllm(qwq, dynamic)} " in vllm_command()
    assert fit_vllm(qwq, naive) == 15_872  # not the article's 16,384
    with pytest.raises(SettingError, match=r"22\.7 GB leave no room .* of 16 GiB"):
        fit_vllm(qwq, dynamic, 16 * GIB)


def test_a_real_load_takes_what_audit_and_ledger_say(model_path: Path) -> None:
    keep = ["model.layers.1.mlp.down_proj"]
    codec = BnbCodec("nf4", double=True)
    model = load_quantised(Checkpoint(model_path), [*keep, "lm_head"], codec)
    taken = 0
    for parameter in model.parameters():
        taken += parameter.nbytes
        if state := getattr(parameter, "quant_state", None):
            taken += state.absmax.nbytes + state.state2.absmax.nbytes
    shapes = read_shapes(model_path)
    assert audit(shapes, [*keep, "lm_head"]).n_bytes == pytest.approx(taken, rel=1e-3)
    kept = sum(linear.n_weights for linear in shapes.linears if linear.name in keep)
    found = parts(ledger(shapes, rank=8, kept=kept))
    assert found["weights"] == pytest.approx(taken, rel=1e-3)
    config = peft.LoraConfig(r=8, target_modules="all-linear")
    trained = peft.get_peft_model(model, config)
    adapters = [p for p in trained.parameters() if p.requires_grad]
    assert {p.dtype for p in adapters} == {torch.float32}
    assert found["LoRA adapters"] == sum(p.nbytes for p in adapters)


def test_a_config_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"config\.json is no file; name a config\.json"):
        read_shapes(tmp_path / "config.json")


def test_a_config_says_what_it_skips(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    values = json.loads(Path(tiny_llama.make_in_bytes(tmp_path / "m"), "config.json").read_text())
    values["quantization_config"] = {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "bnb_4bit_use_double_quant": False,
        "llm_int8_skip_modules": ["lm_head", "model.layers.0.mlp"],
    }
    path.write_text(json.dumps(values))
    shapes = read_shapes(path)
    assert shapes.skip == ("lm_head", "model.layers.0.mlp") and not shapes.double
    values["quantization_config"]["load_in_4bit"] = False
    path.write_text(json.dumps(values))
    with pytest.raises(ModelFileError, match="not to 4 bits"):
        read_shapes(path)


def test_bits_are_those_of_the_field() -> None:
    assert bits_per_weight(double=False) == 4.5 and bits_per_weight(block=32) < 4.27
    assert round(bits_per_weight(), 3) == 4.127


def test_unsloth_keeps_two_layers_inputs_on_the_card_and_a_quarter_of_the_logits(
    qwq: Shapes,
) -> None:
    own, other = (ledger(qwq, engine=engine) for engine in ("unsloth", "peft"))
    between, logits = "activations, kept between layers", "logits and their gradient"
    assert parts(own)[between] * 32 == parts(other)[between] == 64 * 4096 * 5120 * 2
    assert parts(own)[logits] * 2 == parts(other)[logits]
    same = parts(own).keys() - {between, logits}
    assert all(parts(own)[part] == parts(other)[part] for part in same)
    assert "2.68 GB in the computer's own memory" in own.as_text()
    assert own.to_dict()["engine"] == "unsloth"
    whole = parts(ledger(qwq, checkpointing=False))
    one = parts(other)["activations, one layer at a time"]
    assert whole["activations, kept of all layers"] == 64 * one and between not in whole


def test_numbers_that_make_no_sense_are_refused(qwq: Shapes) -> None:
    for wrong in ({"rank": -1}, {"batch": 0}, {"context": 0}, {"quant": "int3"},
                  {"engine": "jax"}):  # fmt: skip
        with pytest.raises(SettingError):
            ledger(qwq, **wrong)
