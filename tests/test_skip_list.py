"""Skip lists, read as transformers reads them; what a load and llama-quantize make of them."""

from __future__ import annotations

import json
from pathlib import Path

import bitsandbytes.functional as bnb
import pytest
import tiny_llama
import torch
from bitsandbytes.nn.modules import has_avx512bf16

from qwqlab import gguf_file
from qwqlab.divergence import measure_files
from qwqlab.errors import ModelFileError, SettingError
from qwqlab.quant import skip_list
from qwqlab.quant import skip_list as four_bit
from qwqlab.quant.checkpoint import Checkpoint, Linear, from_gguf, list_linears, to_gguf
from qwqlab.quant.codecs import BnbCodec
from qwqlab.quant.sizes import read_shapes
from qwqlab.quant.weights import write_dynamic

CODEC = BnbCodec("nf4", double=True)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A tiny model of twelve layers, so that one number begins another."""
    folder = tmp_path_factory.mktemp("twelve")
    return Checkpoint(tiny_llama.make(folder, num_hidden_layers=12, vocab_size=1000))


@pytest.fixture(scope="module")
def linears(checkpoint: Checkpoint) -> tuple[Linear, ...]:
    return list_linears(checkpoint.skeleton())


@pytest.mark.parametrize(
    "skip",
    [
        ["lm_head"],
        [],
        ["model.layers.1"],
        ["model.layers.1.mlp", "lm_head"],
        ["mlp.up_proj"],
        ["layers.1.mlp"],
        ["layers.3.mlp.up_proj", "lm_head"],
        ["3.mlp.up_proj"],
        ["up_pro"],
        ["model.layers.[02].self_attn"],
        ["Lm_head"],
    ],
)
def test_a_list_keeps_what_transformers_keeps(
    skip: list[str], checkpoint: Checkpoint, linears: tuple[Linear, ...]
) -> None:
    model = four_bit.load_quantised(checkpoint, skip, CODEC)
    packed = {
        name for name, module in model.named_modules() if type(module).__name__ == "Linear4bit"
    }
    resolved = skip_list.resolve(skip, linears)
    assert packed == {linear.name for linear in linears} - set(resolved.kept)
    same = four_bit.replace(checkpoint, skip, CODEC)
    assert packed == {n for n, m in same.named_modules() if type(m).__name__ == "Linear4bit"}


def test_entries_that_fit_nothing_are_told(linears: tuple[Linear, ...]) -> None:
    skip = ["model.layers.99", "layers.1.mlp", "lm_head", "mlp.up"]
    assert skip_list.resolve(skip, linears).dead == ("model.layers.99", "layers.1.mlp", "mlp.up")
    assert skip_list.resolve(None, linears).kept == ("lm_head",)
    assert skip_list.resolve([], linears).kept == ()  # the head is then quantised
    with pytest.raises(SettingError, match="no regular expression"):
        skip_list.resolve(["model.layers.["], linears)


def test_a_made_list_keeps_just_what_was_asked_for(
    checkpoint: Checkpoint, linears: tuple[Linear, ...]
) -> None:
    keep = ["model.layers.1.mlp.up_proj", "model.layers.11.self_attn.v_proj"]
    skip = skip_list.make_skip_list(keep, linears)
    assert set(skip) == {*keep, "lm_head"}
    assert "loaded" in four_bit.verify(checkpoint, skip, keep, CODEC)
    with pytest.raises(SettingError, match="not loaded as the skip list says"):
        four_bit.verify(checkpoint, ["model.layers.1", "lm_head"], keep, CODEC)
    with pytest.raises(SettingError, match="not loaded as the skip list says"):
        four_bit.verify(checkpoint, [*keep], keep, CODEC)  # no lm_head: the head is packed
    with pytest.raises(SettingError, match="no skip list"):
        skip_list.make_skip_list(["model.layers.77.mlp.up_proj"], linears)


def test_where_memory_is_short_the_skeleton_is_looked_at(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(four_bit, "free_memory", lambda: 0)
    keep = ["model.layers.1.mlp.up_proj"]
    how = four_bit.verify(checkpoint, [*keep, "lm_head"], keep, CODEC)
    assert "without weights" in how
    with pytest.raises(SettingError):
        four_bit.verify(checkpoint, ["model.layers.1", "lm_head"], keep, CODEC)


def test_weights_stay_what_they_are_after_a_forward_pass(checkpoint: Checkpoint) -> None:
    # On a CPU with AVX512-BF16 bitsandbytes repacks them in place unless told not to.
    model = four_bit.load_quantised(checkpoint, ["lm_head"], CODEC, "float32")
    weight = model.model.layers[3].mlp.down_proj.weight
    before = bnb.dequantize_4bit(weight.data, weight.quant_state).clone()
    with torch.no_grad():
        model(torch.arange(8)[None])
    assert torch.equal(bnb.dequantize_4bit(weight.data, weight.quant_state), before)


def test_without_the_guard_they_do_not(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_avx512bf16():
        pytest.skip("only CPUs with AVX512-BF16 repack")
    monkeypatch.setattr(four_bit, "stop_repacking", lambda model: model)
    with pytest.raises(AssertionError):
        test_weights_stay_what_they_are_after_a_forward_pass(checkpoint)


def test_names_go_to_a_gguf_and_back(linears: tuple[Linear, ...]) -> None:
    for linear in linears:
        assert from_gguf(to_gguf(linear.name)) == linear.name
    assert to_gguf("model.norm") == "model.norm.weight"
    assert from_gguf("token_embd.weight") is None


@pytest.mark.slow
def test_llama_quantize_keeps_the_same_modules(model_path: Path, tmp_path: Path) -> None:
    linears = list_linears(Checkpoint(model_path).skeleton())
    keep = ["model.layers.1.mlp.down_proj", "model.layers.11.self_attn.v_proj"]
    flags = skip_list.tensor_types(keep, linears, tied=True)
    target = tmp_path / "dynamic.gguf"
    write_dynamic(model_path, target, "Q4_0", flags)
    types = {tensor.name: tensor.type for tensor in gguf_file.inspect(target).tensors}
    kept = {name for name, kind in types.items() if kind == "BF16"}
    assert kept == {"blk.1.ffn_down.weight", "blk.11.attn_v.weight", "token_embd.weight"}
    assert types["blk.10.ffn_down.weight"] == "Q4_0"
    plain = write_dynamic(model_path, tmp_path / "plain.gguf", "Q4_0")
    whole = write_dynamic(
        model_path, tmp_path / "whole.gguf", "Q4_0",
        skip_list.tensor_types([linear.name for linear in linears], linears, tied=True),
    )  # fmt: skip
    files = {"plain": plain, "whole": whole}
    found = measure_files(model_path, files, n_ctx=256, n_chunks=1, say=lambda _: None)
    by = {effect.name: effect.kl for effect in found}
    assert list(by) == list(files)
    assert by["plain"] > 20 * abs(by["whole"])  # BF16 holds Q4_1 to within its rounding


def test_a_dynamic_copy_of_an_unknown_quant_is_refused(model_path: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="'Q4_X' is not a quant"):
        write_dynamic(model_path, tmp_path / "none.gguf", "Q4_X")
    assert not list(tmp_path.iterdir())


def test_an_audit_counts_what_was_published_of_qwq() -> None:
    shapes = read_shapes("QwQ-32B")
    assert shapes.n_parameters == 32_763_876_352
    naive = skip_list.audit(shapes)
    assert naive.n_bytes / 1e9 == pytest.approx(19.21, abs=0.005)
    assert naive.bits_per_weight == pytest.approx(4.127, abs=5e-4)
    one = skip_list.audit(shapes, ["lm_head", "model.layers.5.mlp"])
    assert (one.n_bytes - naive.n_bytes) / 1e9 == pytest.approx(0.630, abs=0.001)
    assert len(one.kept) == 3 and one.extra == pytest.approx(0.0328, abs=1e-4)
    single = skip_list.audit(shapes, None, double=False)
    assert single.bits_per_weight == 4.5
    headless = skip_list.audit(shapes, [])
    assert not headless.head_kept and headless.n_bytes < naive.n_bytes
    assert "4 bits" in headless.describe()
    dead = skip_list.audit(shapes, ["lm_head", "layers.0"])
    assert "'layers.0' fits no linear module" in dead.describe()


def test_an_audit_of_a_tied_model_agrees_with_a_load(model_path: Path) -> None:
    checkpoint = Checkpoint(model_path)
    shapes = read_shapes(model_path)
    keep = ["model.layers.1.mlp.down_proj"]
    model = four_bit.load_quantised(checkpoint, [*keep, "lm_head"], CODEC)
    n_bytes = 0
    for parameter in model.parameters():
        n_bytes += parameter.nbytes
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            n_bytes += state.absmax.nbytes + state.state2.absmax.nbytes
    counted = skip_list.audit(shapes, [*keep, "lm_head"]).n_bytes
    assert counted == pytest.approx(n_bytes, rel=1e-3)


@pytest.mark.parametrize(
    ("content", "ok"),
    [
        ('["lm_head"]', True),
        ('{"skip": ["lm_head"], "verified": true}', True),
        ('{"llm_int8_skip_modules": ["lm_head"]}', True),
        ('{"skip": "lm_head"}', False),
        ("[1]", False),
        ("{}", False),
        ("lm_head", False),
        ("[" * 100_000, False),
    ],
)
def test_a_skip_file_is_read_or_refused(content: str, ok: bool, tmp_path: Path) -> None:
    path = tmp_path / "skip.json"
    path.write_text(content)
    if ok:
        assert skip_list.read_skip_file(path) == ["lm_head"]
        return
    with pytest.raises(SettingError, match=r"skip\.json"):
        skip_list.read_skip_file(path)


def test_a_config_that_is_not_there_or_states_no_sizes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with pytest.raises(ModelFileError, match=r"is not a file; name a config\.json"):
        read_shapes(path)
    path.write_text('{"model_type": "qwen2", "vocab_size": 152064}')
    with pytest.raises(ModelFileError, match="it states no num_hidden_layers"):
        read_shapes(path)


def test_a_config_says_what_it_skips(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    values = json.loads(
        Path(tiny_llama.make(tmp_path / "m", vocab_size=1000), "config.json").read_text()
    )
    values["quantization_config"] = {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "bnb_4bit_use_double_quant": False,
        "llm_int8_skip_modules": ["lm_head", "model.layers.0.mlp"],
    }
    path.write_text(json.dumps(values))
    shapes = read_shapes(path)
    assert shapes.skip == ("lm_head", "model.layers.0.mlp") and not shapes.double
    for spoilt in ({"load_in_4bit": False}, {"llm_int8_skip_modules": [1]}):
        changed = {**values["quantization_config"], **spoilt}
        path.write_text(json.dumps({**values, "quantization_config": changed}))
        with pytest.raises(ModelFileError):
            read_shapes(path)
