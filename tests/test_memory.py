"""The ledger: what was published of QwQ-32B, and what a real load takes here."""

from __future__ import annotations

import json
from pathlib import Path

import peft
import pytest
import torch

from qwqlab.errors import SettingError
from qwqlab.quant import skip_list as four_bit
from qwqlab.quant.checkpoint import Checkpoint
from qwqlab.quant.codecs import BnbCodec
from qwqlab.quant.sizes import Ledger, Shapes, bits_per_weight, ledger, read_shapes


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


def test_a_real_load_takes_what_the_ledger_says(model_path: Path) -> None:
    checkpoint = Checkpoint(model_path)
    model = four_bit.load_quantised(checkpoint, ["lm_head"], BnbCodec(double=True))
    taken = 0
    for parameter in model.parameters():
        taken += parameter.nbytes
        if state := getattr(parameter, "quant_state", None):
            taken += state.absmax.nbytes + state.state2.absmax.nbytes
    found = parts(ledger(read_shapes(model_path), rank=8))
    assert found["weights"] == pytest.approx(taken, rel=1e-3)
    config = peft.LoraConfig(r=8, target_modules="all-linear")
    trained = peft.get_peft_model(model, config)
    adapters = [p for p in trained.parameters() if p.requires_grad]
    assert {p.dtype for p in adapters} == {torch.float32}
    assert found["LoRA adapters"] == sum(p.nbytes for p in adapters)


def test_bits_are_those_of_the_field() -> None:
    assert bits_per_weight(double=False) == 4.5 and bits_per_weight(block=32) < 4.27
    assert round(bits_per_weight(), 3) == 4.127


def test_numbers_that_make_no_sense_are_refused(qwq: Shapes) -> None:
    for wrong in ({"rank": -1}, {"batch": 0}, {"context": 0}, {"context": 10**9}, {"kept": -1},
                  {"quant": "int3"}):  # fmt: skip
        with pytest.raises(SettingError):
            ledger(qwq, **wrong)
