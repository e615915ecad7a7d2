"""What asks for torch's device: computed on a second one, and on cards that are not here."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import peft
import pytest
import tiny_llama
import torch
from outside import CHECKOUT
from second_device import second_device

from qwqlab import quant
from qwqlab.quant import BnbCodec, Checkpoint, Decoded, Reference, find_codec, load_quantised
from qwqlab.tuning import Recipe, encode, engines, find_examples, peft_logits, training


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return Checkpoint(tiny_llama.make_in_bytes(tmp_path_factory.mktemp("tiny") / "model"))


def load(tiny: Checkpoint) -> Any:
    """The model with an attention of plain operations."""
    return tiny.load(attn_implementation="eager")


def test_the_second_device_refuses_what_a_card_refuses(tiny: Checkpoint) -> None:
    model, ids = load(tiny), torch.zeros((1, 4), dtype=torch.long)
    with second_device() as device:
        there = load(tiny).to(device)
        with pytest.raises(RuntimeError, match="same device"):
            there(ids)
        logits = there(ids.to(device)).logits
        with pytest.raises((RuntimeError, TypeError), match="numpy"):
            logits.detach().numpy()
        found = logits.detach().cpu()
    assert torch.equal(found, model(ids).logits)


@pytest.mark.parametrize("name", ["nf4-dq", "Q4_0"])
def test_a_variant_is_measured_where_the_model_is(tiny: Checkpoint, name: str) -> None:
    blocks = torch.randint(0, 258, (2, 32), generator=torch.Generator().manual_seed(1))

    def measure(model: Any) -> Any:
        reference = Reference(model, blocks)
        with Decoded(model, find_codec(name)).swapped():
            return reference.compare()

    model = load(tiny)
    with second_device() as device:
        there = measure(load(tiny).to(device))
    assert there == measure(model) and there.kl_mean > 0


def test_the_look_of_08_is_at_the_models_own_device(tiny: Checkpoint) -> None:
    cells = json.loads((CHECKOUT / "notebooks" / "08_qlora.ipynb").read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    first = next(n for n, source in enumerate(sources) if "tuning.load_peft(" in source)
    adapted: Any = peft.get_peft_model(load(tiny), peft.LoraConfig(target_modules="all-linear"))
    with second_device() as device:
        tuning = SimpleNamespace(load_peft=lambda *_: adapted.to(device), encode=encode)
        names = {
            "tuning": tuning, "quant": quant, "checkpoint": tiny, "small": Recipe(),
            "train": find_examples("shopping"), "tokenizer": tiny.tokenizer(), "end": 2,
        }  # fmt: skip
        for source in sources[first : first + 4]:
            exec(source, names)
    assert names["off"] == [0, 0] and not names["repacks"]


def test_a_card_without_bfloat16_trains_in_float16(
    tiny: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cast() -> tuple[bool, bool]:
        options = training.trainer_options(Recipe(), tmp_path)
        return options["bf16"], options["fp16"]

    assert cast() == (False, False) and engines.choose_dtype() == "bfloat16"  # on the CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for has, dtype in ((True, "bfloat16"), (False, "float16")):
        # A Turing card says that it has it: in emulation.
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True, has=has:
            has or including_emulation,
        )  # fmt: skip
        assert cast() == (has, not has) and engines.choose_dtype() == dtype
    monkeypatch.undo()
    packed = tmp_path / "packed"
    load_quantised(tiny, ["lm_head"], BnbCodec(double=True)).save_pretrained(packed)
    for checkpoint in (tiny, Checkpoint(packed)):
        model = load_quantised(checkpoint, ["lm_head"], BnbCodec(double=True), "float16")
        floats = {p.dtype for p in model.parameters() if p.is_floating_point()}
        products = {m.compute_dtype for m in model.modules() if hasattr(m, "compute_dtype")}
        assert floats == products == {torch.float16}


def test_repacking_is_switched_off_on_the_cpu_alone(
    tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def switches(**options: Any) -> set[bool]:
        model = load_quantised(tiny, ["lm_head"], BnbCodec(), **options)
        return {
            module.support_avx512bf16_for_cpu
            for module in model.modules()
            if hasattr(module, "support_avx512bf16_for_cpu")
        }

    import bitsandbytes.nn.modules

    monkeypatch.setattr(bitsandbytes.nn.modules, "has_avx512bf16", lambda: True)
    assert switches() == {False}
    elsewhere = lambda **_: quant.skip_list.replace(tiny, ["lm_head"], BnbCodec())  # noqa: E731
    assert switches(load=elsewhere) == {True}  # on "meta"


def test_what_peft_computes_for_a_comparison_is_float32(
    tiny: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = peft.LoraConfig(target_modules="all-linear", init_lora_weights=False)
    adapted: Any = peft.get_peft_model(load(tiny), config)
    adapted.save_pretrained(tmp_path / "adapter")
    job = [str(tiny.path), str(tmp_path / "adapter"), [[1, 2, 3]]]
    (tmp_path / "job.json").write_text(json.dumps(job))
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path)])
    torch.set_float32_matmul_precision("high")  # TF32, where a card has it
    try:
        peft_logits.main()
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.set_float32_matmul_precision("highest")
    ((own, bare),) = np.load(tmp_path / "logits.npy")
    wanted = adapted(torch.tensor([[1, 2, 3]])).logits[0, -1].detach().numpy()
    assert np.abs(own - wanted).max() < 1e-5 < np.abs(own - bare).max()


def test_what_pytorch_has_cached_of_a_card_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "is_available": True, "mem_get_info": (2 * 10**9, 24 * 10**9),
        "memory_reserved": 21 * 10**9, "memory_allocated": 10**9,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    assert engines.free_on_device() == 22 * 10**9
