"""Configurations as people bring them: of any architecture, nested, marked, and with code.

The oracles are transformers' own model, what bitsandbytes makes of it, and the cache that it fills.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import bitsandbytes.functional as bnb
import huggingface_hub.constants
import pytest
import tiny_llama
import torch
import transformers
from transformers.pytorch_utils import Conv1D
from transformers.quantizers import AutoHfQuantizer

from qwqlab.cli import main
from qwqlab.errors import ModelFileError, QwqlabError, SettingError
from qwqlab.quant import (
    Decoded,
    audit,
    find_codec,
    ledger,
    quant_error,
    read_shapes,
    resolve_skip_list,
)
from qwqlab.quant.checkpoint import build_skeleton, list_states, read_config

SMALL = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
DENSE = {**SMALL, "vocab_size": 1000, "intermediate_size": 256, "num_key_value_heads": 2}
VISION = {"hidden_size": 64, "intermediate_size": 64, "depth": 1, "num_hidden_layers": 1,
          "num_attention_heads": 2, "num_heads": 2}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "qwen2": DENSE,
    "gpt2": {"vocab_size": 1000, "n_embd": 128, "n_layer": 2, "n_head": 4},
    "gptj": {"vocab_size": 1000, "n_embd": 128, "n_layer": 2, "n_head": 4, "rotary_dim": 16},
    "gpt_neox": {"vocab_size": 1000, "intermediate_size": 512, **SMALL},
    "bloom": {"vocab_size": 1000, "hidden_size": 128, "n_layer": 2, "n_head": 4},
    "mpt": {"vocab_size": 1000, "d_model": 128, "n_layers": 2, "n_heads": 4},
    "gpt_bigcode": {"vocab_size": 1000, "n_embd": 128, "n_layer": 2, "n_head": 4},
    "qwen3_moe": {**DENSE, "moe_intermediate_size": 64, "num_experts": 4, "head_dim": 32,
                  "num_experts_per_tok": 2},
    "deepseek_v3": {**DENSE, "num_key_value_heads": 4, "moe_intermediate_size": 64,
                    "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "q_lora_rank": 32,
                    "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
                    "v_head_dim": 16},
    "gemma3": {"text_config": {**DENSE, "head_dim": 32, "sliding_window": 16},
               "vision_config": VISION},
    "qwen3_5": {"text_config": {**DENSE, "num_hidden_layers": 4, "head_dim": 32}},
    "qwen2_vl": {**DENSE, "vision_config": VISION,
                 "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]}},
    "mistral3": {"text_config": {"model_type": "mistral", **DENSE}, "vision_config": VISION},
}  # fmt: skip


def write(folder: Path, values: dict[str, Any], mark: bytes = b"") -> Path:
    path = folder / "config.json"
    path.write_bytes(mark + json.dumps(values).encode())
    return path


@pytest.mark.parametrize("kind", CONFIGS)
def test_an_audit_counts_what_bitsandbytes_packs(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path, {"model_type": kind, **CONFIGS[kind]})
    shapes = read_shapes(path)
    found = audit(shapes)
    assert found.head_kept and found.kept == () and found.n_bytes == found.naive_bytes > 0
    model = build_skeleton(read_config(path), path)
    options: Any = transformers.BitsAndBytesConfig
    quantizer: Any = AutoHfQuantizer.from_config(options(load_in_4bit=True))
    quantizer.preprocess_model(model, device_map=None)
    names = {n for n, m in model.named_modules() if type(m).__name__ == "Linear4bit"}
    assert names == {linear.name for linear in shapes.quantised}
    assert resolve_skip_list(None, shapes.linears).kept == tuple(
        linear.name for linear in shapes.linears if linear.name not in names
    )


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_ledger_counts_the_cache_that_transformers_fills(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path, {"model_type": kind, **CONFIGS[kind]})
    found = ledger(read_shapes(path), batch=2, context=24)
    torch.manual_seed(3407)
    skeleton = build_skeleton(read_config(path), path)
    model: Any = type(skeleton)(skeleton.config).float().eval()
    if model._can_set_experts_implementation():
        model.set_experts_implementation("eager")
    with torch.inference_mode():
        cache = model(input_ids=torch.randint(0, 1000, (2, 24)), use_cache=True).past_key_values
    values = [value for layer in cache.layers for value in vars(layer).values()]
    held = [state.numel() for value in values for state in list_states(value)]
    assert {line.part: line.n_bytes for line in found.lines}["KV cache"] == 2 * sum(held)
    assert found.total("training") > found.total("generating") / 2 > 0
    assert "hidden" in found.as_text()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"model_type": "vit"}, "'vit' is none that writes text"),
        ({"model_type": "t5"}, "'t5' has an encoder"),
        ({"model_type": "whisper"}, "'whisper' has an encoder"),
        ({"model_type": "no_such_model"}, "no_such_model"),
        ({"model_type": "falcon", **SMALL}, "bitsandbytes quantises no module of 'falcon'"),
        ({"llm_config": DENSE}, "model_type"),
        ({"model_type": "qwen2", **DENSE, "num_attention_heads": 0}, "config"),
        (
            {"model_type": "qwen2", **DENSE, "num_hidden_layers": 0},
            "quantises no module of 'qwen2'",
        ),
        ({"model_type": "qwen2", **DENSE, "hidden_size": "wide"}, "hidden_size"),
        ({"model_type": "qwen2", **DENSE, "quantization_config": "nf4"}, "no configuration from"),
        ({"model_type": "qwen2", **DENSE, "quantization_config": {"quant_method": "awq"}}, "awq"),
        ({"text_config": {"num_hidden_layers": 10**7}}, "gives num_hidden_layers as 10000000"),
        ([], "holds no JSON object"),
    ],
)
def test_what_is_not_read_is_named_in_one_sentence(
    values: Any, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, values)
    for command in ("audit", "ledger"):
        assert main([command, str(path)]) == 1
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1, said.err
        assert says in said.err and str(path) in said.err


def test_an_audit_says_what_stays_in_16_bits(tmp_path: Path) -> None:
    shapes = read_shapes(write(tmp_path, {"model_type": "qwen3_moe", **CONFIGS["qwen3_moe"]}))
    found = audit(shapes)
    in_experts = 2 * 4 * 3 * 128 * 64  # layers, experts, matrices of one
    assert found.n_other > in_experts
    assert f"{found.n_other:,} weights elsewhere in 16 bits" in found.as_text()
    assert audit(shapes, []).n_other < found.n_other  # a head in 4 bits


def test_a_model_without_attention_has_an_audit_and_no_ledger(tmp_path: Path) -> None:
    values = {"model_type": "mamba", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 100}
    shapes = read_shapes(write(tmp_path, values))
    assert audit(shapes).n_bytes > 0
    with pytest.raises(ModelFileError, match=r"reads no cache .*: 'mamba' keeps none"):
        ledger(shapes)


def test_gpt2s_transposed_weights_are_measured_as_they_are_packed(tmp_path: Path) -> None:
    folder = tiny_llama.make_in_bytes(tmp_path / "gpt2")
    config = transformers.GPT2Config(n_embd=64, n_layer=1, n_head=2, vocab_size=258)
    make: Any = transformers.GPT2LMHeadModel
    own = make(config)
    own.save_pretrained(folder)
    found = {error.name: error for error in quant_error(folder, n_tokens=64).modules}
    assert len(found) == 5 and "lm_head" in found
    module, error = own.transformer.h[0].mlp.c_fc, found["transformer.h.0.mlp.c_fc"]
    weight = module.weight.detach().T.contiguous()
    decoded = bnb.dequantize_4bit(*bnb.quantize_4bit(weight, quant_type="nf4"))
    lost = (weight - decoded).square().sum() / weight.square().sum()
    assert (error.n_out, error.n_in) == (256, 64)
    assert error.weight_rel_mse == pytest.approx(float(lost), rel=1e-4)
    assert error.output_rel_mse is not None and error.output_rel_mse < 0.1
    with Decoded(own, find_codec("nf4")).swapped() as model:
        assert torch.allclose(model.transformer.h[0].mlp.c_fc.weight.T, decoded, atol=1e-6)


PACKED = {"load_in_4bit": True, "quant_method": "bitsandbytes"}


@pytest.mark.parametrize("skip", ["lm_head", [1], {"lm_head": True}, 3, [["lm_head"]]])
def test_a_skip_list_is_a_list_of_names(skip: Any, tmp_path: Path) -> None:
    packed = {**PACKED, "llm_int8_skip_modules": skip}
    path = write(tmp_path, {"model_type": "qwen2", **DENSE, "quantization_config": packed})
    with pytest.raises(SettingError, match=r"config\.json holds .* no list of module names"):
        read_shapes(path)
    with pytest.raises(SettingError, match="no list of module names"):
        resolve_skip_list(skip, ())


@pytest.mark.parametrize("place", ["top", "text_config"])
def test_a_quantisation_is_read_wherever_it_is_stated(place: str, tmp_path: Path) -> None:
    packed = {**PACKED, "llm_int8_skip_modules": ["lm_head"]}
    values = json.loads(json.dumps({"model_type": "gemma3", **CONFIGS["gemma3"]}))
    (values if place == "top" else values["text_config"])["quantization_config"] = packed
    shapes = read_shapes(write(tmp_path, values))
    assert shapes.skip == ("lm_head",) and not shapes.double  # as bitsandbytes, if not told


def test_a_byte_order_mark_is_no_part_of_a_configuration(tmp_path: Path) -> None:
    values = {"model_type": "qwen2", **DENSE}
    plain = read_shapes(write(tmp_path, values))
    marked = write(tmp_path, values, b"\xef\xbb\xbf")
    assert read_shapes(marked).linears == plain.linears == read_shapes(tmp_path).linears
    marked.write_bytes(json.dumps(values).encode("utf-16"))
    for source in (marked, tmp_path):
        with pytest.raises(ModelFileError, match=r"config\.json is not text in UTF-8; save it"):
            read_shapes(source)


def test_no_hub_is_asked_for_what_a_configuration_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr("socket.getaddrinfo", lambda *args, **_: asked.append(args))
    with contextlib.suppress(ModelFileError):
        read_shapes(write(tmp_path, {"model_type": "fast_vlm"}))
    assert not asked


def test_code_that_a_configuration_names_is_never_run(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    named = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    known = write(tmp_path, {"model_type": "qwen2", **DENSE, "auto_map": named})
    assert audit(read_shapes(known)).n_bytes > 0
    write(tmp_path, {"model_type": "own", **DENSE, "auto_map": named})
    for source in (known, tmp_path):
        with pytest.raises(ModelFileError):
            read_shapes(source)
    assert not (tmp_path / "ran").exists()


@pytest.mark.nightly  # some minutes: every kind is built twice in its default size
def test_every_architecture_of_transformers_gets_numbers_or_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    counts: Counter[str] = Counter()
    autos: Any = transformers.AutoModelForCausalLM, transformers.AutoModelForMultimodalLM
    kinds = sorted(transformers.CONFIG_MAPPING)
    for kind in kinds:
        path = write(tmp_path, {"model_type": kind})
        shapes = None
        try:
            shapes = read_shapes(path)
            counts["audit"] += audit(shapes).n_bytes > 0
            counts["ledger"] += ledger(shapes).total("training") > 0
        except QwqlabError as error:
            assert "\n" not in str(error) and len(str(error)) < 400, (kind, str(error))
        if shapes is None:
            continue
        config: Any = transformers.AutoConfig.from_pretrained(str(path))
        auto = next(auto for auto in autos if type(config) in auto._model_mapping)
        with torch.device("meta"):
            model: Any = auto.from_config(config)
        modules = [
            m for m in model.modules() if type(m) is torch.nn.Linear or isinstance(m, Conv1D)
        ]
        n_weights = sum(module.weight.numel() for module in modules)
        assert sum(linear.n_weights for linear in shapes.linears) == n_weights, kind
    print(f"of {len(kinds)} architectures: {counts}")
    assert counts["audit"] > 200 and counts["ledger"] > 150
