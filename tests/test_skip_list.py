"""Skip lists, read as transformers reads them; what a load and llama-quantize make of them."""

from __future__ import annotations

from pathlib import Path

import bitsandbytes.functional as bnb
import pytest
import tiny_llama
import torch

from qwqlab.errors import SettingError
from qwqlab.models import gguf
from qwqlab.quant import (
    BnbCodec,
    Checkpoint,
    Linear,
    list_linears,
    load_quantised,
    resolve_skip_list,
    skip_list,
    verify_skip_list,
    write_dynamic,
)

CODEC = BnbCodec("nf4", double=True)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A tiny model of twelve layers, so that one number begins another."""
    folder = tmp_path_factory.mktemp("twelve")
    return Checkpoint(tiny_llama.make_in_bytes(folder, num_hidden_layers=12))


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
    model = load_quantised(checkpoint, skip, CODEC)
    packed = {
        name for name, module in model.named_modules() if type(module).__name__ == "Linear4bit"
    }
    resolved = resolve_skip_list(skip, linears)
    assert packed == {linear.name for linear in linears} - set(resolved.kept)
    same = skip_list.replace(checkpoint, skip, CODEC)
    assert packed == {n for n, m in same.named_modules() if type(m).__name__ == "Linear4bit"}


def test_entries_that_fit_nothing_are_told(linears: tuple[Linear, ...]) -> None:
    skip = ["model.layers.99", "layers.1.mlp", "lm_head", "mlp.up"]
    assert resolve_skip_list(skip, linears).dead == ("model.layers.99", "layers.1.mlp", "mlp.up")
    assert resolve_skip_list(None, linears).kept == ("lm_head",)
    assert resolve_skip_list([], linears).kept == ()  # the head is then quantised
    with pytest.raises(SettingError, match="no regular expression"):
        resolve_skip_list(["model.layers.["], linears)


def test_a_made_list_keeps_just_what_was_asked_for(
    checkpoint: Checkpoint, linears: tuple[Linear, ...]
) -> None:
    keep = ["model.layers.1.mlp.up_proj", "model.layers.11.self_attn.v_proj"]
    skip = skip_list.make_skip_list(keep, linears)
    assert set(skip) == {*keep, "lm_head"}
    assert "loaded" in verify_skip_list(checkpoint, skip, keep, CODEC)
    with pytest.raises(SettingError, match="not loaded as the skip list says"):
        verify_skip_list(checkpoint, ["model.layers.1", "lm_head"], keep, CODEC)
    with pytest.raises(SettingError, match="not loaded as the skip list says"):
        verify_skip_list(checkpoint, [*keep], keep, CODEC)  # no lm_head: the head is packed
    with pytest.raises(SettingError, match="no skip list"):
        skip_list.make_skip_list(["model.layers.77.mlp.up_proj"], linears)


def test_where_memory_is_short_the_skeleton_is_looked_at(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(skip_list, "free_memory", lambda: 0)
    keep = ["model.layers.1.mlp.up_proj"]
    how = verify_skip_list(checkpoint, [*keep, "lm_head"], keep, CODEC)
    assert "without weights" in how
    with pytest.raises(SettingError):
        verify_skip_list(checkpoint, ["model.layers.1", "lm_head"], keep, CODEC)


def test_weights_stay_what_they_are_after_a_forward_pass(checkpoint: Checkpoint) -> None:
    # On a CPU with AVX512-BF16 bitsandbytes repacks them in place unless told not to.
    model = load_quantised(checkpoint, ["lm_head"], CODEC, "float32")
    weight = model.model.layers[3].mlp.down_proj.weight
    before = bnb.dequantize_4bit(weight.data, weight.quant_state).clone()
    with torch.no_grad():
        model(torch.arange(8)[None])
    assert torch.equal(bnb.dequantize_4bit(weight.data, weight.quant_state), before)


@pytest.mark.slow
def test_llama_quantize_keeps_the_same_modules(model_path: Path, tmp_path: Path) -> None:
    linears = list_linears(Checkpoint(model_path).skeleton())
    keep = ["model.layers.1.mlp.down_proj", "model.layers.11.self_attn.v_proj"]
    flags = skip_list.tensor_types(keep, linears, tied=True)
    target = tmp_path / "dynamic.gguf"
    write_dynamic(model_path, target, "Q4_0", flags)
    types = {tensor.name: tensor.type for tensor in gguf.inspect(target).tensors}
    kept = {name for name, kind in types.items() if kind == "BF16"}
    assert kept == {"blk.1.ffn_down.weight", "blk.11.attn_v.weight", "token_embd.weight"}
    assert types["blk.10.ffn_down.weight"] == "Q4_0"


def test_a_dynamic_copy_of_an_unknown_quant_is_refused(model_path: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="'Q4_X' is not a quant"):
        write_dynamic(model_path, tmp_path / "none.gguf", "Q4_X")
    assert not list(tmp_path.iterdir())


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
        (str(["lm_head"] * 10_001).replace("'", '"'), False),
    ],
    ids=range(8),
)
def test_a_skip_file_is_read_or_refused(content: str, ok: bool, tmp_path: Path) -> None:
    path = tmp_path / "skip.json"
    path.write_text(content)
    if ok:
        assert skip_list.read_skip_file(path) == ["lm_head"]
        return
    with pytest.raises(SettingError, match=r"skip\.json"):
        skip_list.read_skip_file(path)
