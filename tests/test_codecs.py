"""nf4 and fp4 by bitsandbytes, ggml's types by llama.cpp, and what theory says of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import bitsandbytes.functional as bnb
import numpy as np
import pytest
import torch

from qwqlab.errors import SettingError
from qwqlab.llamacpp import ggml, tools
from qwqlab.models import gguf
from qwqlab.quant import codecs, find_codec, theory


def draw(n_out: int, n_in: int) -> torch.Tensor:
    return torch.randn(n_out, n_in, generator=torch.Generator().manual_seed(n_out * n_in))


@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
@pytest.mark.parametrize("double", [False, True])
def test_a_codec_gives_what_bitsandbytes_gives(quant_type: str, double: bool) -> None:
    weight = draw(192, 576)
    packed, state = bnb.quantize_4bit(weight, quant_type=quant_type, compress_statistics=double)
    encoded = find_codec(quant_type + ("-dq" if double else "")).encode(weight)
    assert torch.equal(encoded.rows(0, 192), bnb.dequantize_4bit(packed, state))
    scales = 192 * 576 // 64
    nested = (scales + 4 * -(-scales // 256) + 4) if double else 4 * scales
    assert encoded.n_bytes == 192 * 576 // 2 + nested


@pytest.mark.parametrize("double", [False, True])
def test_a_matrix_encoded_in_slices_is_the_same(
    double: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codecs, "SLICE", 5000)
    weight = draw(192, 576).bfloat16()
    packed, state = bnb.quantize_4bit(weight, quant_type="nf4", compress_statistics=double)
    encoded = codecs.BnbCodec("nf4", double).encode(weight)
    assert torch.equal(encoded.rows(0, 192), bnb.dequantize_4bit(packed, state).float())


def test_nf4_is_not_what_bitsandbytes_takes_by_default() -> None:
    # quantize_4bit(weight) alone is fp4: a codec that forgot to say nf4 would equal it.
    weight = draw(64, 64)
    default = bnb.dequantize_4bit(*bnb.quantize_4bit(weight))
    assert torch.equal(find_codec("fp4").encode(weight).rows(0, 64), default)
    assert not torch.equal(find_codec("nf4").encode(weight).rows(0, 64), default)


@pytest.mark.parametrize("name", ["nf4", "nf4-dq", "fp4-dq-b128", "Q4_0", "Q5_K", "BF16"])
@pytest.mark.parametrize("shape", [(64, 256), (48, 768), (7, 32)])
def test_slices_of_rows_make_up_the_whole(name: str, shape: tuple[int, int]) -> None:
    codec = find_codec(name)
    encoded = codec.encode(draw(*shape))
    step = codec.step(shape[1])
    starts = range(0, shape[0], step)
    parts = [encoded.rows(start, min(start + step, shape[0])) for start in starts]
    assert torch.equal(torch.cat(parts), encoded.rows(0, shape[0]))


@pytest.mark.parametrize(("shape", "name"), [((192, 576), "nf4-b128"), ((64, 96), "nf4")])
def test_rows_that_end_within_a_block_are_decoded_rightly(
    shape: tuple[int, int], name: str
) -> None:
    # bitsandbytes 0.50.2 on a CPU gives an error of 0.05 here when asked for the matrix as it is.
    weight = draw(*shape)
    error = (find_codec(name).encode(weight).rows(0, shape[0]) - weight).square().sum()
    assert float(error / weight.square().sum()) == pytest.approx(0.0086, rel=0.1)


def test_types_that_nobody_makes_are_refused_in_a_sentence() -> None:
    for name in ("int4", "nf4-b100", "nf4dq", "IQ2_XXS", ""):
        with pytest.raises(SettingError, match=r"."):
            find_codec(name)


def test_theory_agrees_with_what_is_published() -> None:
    # Lloyd-Max: table I of Max (1960) gives 0.009497 for 16 levels. nf4 and fp4: measured before.
    assert theory.lloyd_max(16) == pytest.approx(0.009497, rel=1e-3)
    assert theory.lloyd_max(2) == pytest.approx(0.3634, rel=1e-3)
    measured = {"nf4": 0.00846, "nf4-dq": 0.00847, "nf4-b32": 0.00762, "nf4-b128": 0.00914,
                "fp4": 0.01488}  # fmt: skip
    for name, error in measured.items():
        assert theory.on_gaussian(name) == pytest.approx(error, rel=2e-3), name
    assert theory.shannon(4.5) < theory.on_gaussian("Q4_0") < theory.on_gaussian("nf4")


@pytest.fixture(scope="module")
def quantise(
    model_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Path, str]]:
    """Make a pure copy of the embedded model with llama-quantize; with what it logged."""
    folder = tmp_path_factory.mktemp("pure")

    @lru_cache
    def make(quant: str) -> tuple[Path, str]:
        target = folder / f"{quant}.gguf"
        args = ["--allow-requantize", "--pure", str(model_path), str(target), quant]
        return target, tools.run_tool("llama-quantize", args).stderr

    return make


NIGHTLY = [pytest.param(quant, marks=pytest.mark.nightly) for quant in ("Q8_0", "Q3_K_S", "Q6_K")]


@pytest.mark.parametrize("quant", ["Q4_0", "Q4_K_S", *NIGHTLY])
def test_ggml_gives_the_bytes_that_llama_quantize_writes(
    quant: str, quantise: Callable[[str], tuple[Path, str]], model_path: Path
) -> None:
    path, log = quantise(quant)
    source, copy = gguf.inspect(model_path), gguf.inspect(path)
    tensors = {tensor.name: tensor for tensor in copy.tensors}
    for tensor in source.tensors:
        if tensor.name not in ("blk.3.ffn_down.weight", "blk.3.attn_k.weight"):
            continue
        n_out = tensor.shape[1]
        packed = np.memmap(model_path, np.uint8, "r", tensor.offset, (tensor.n_bytes,))
        weights = ggml.dequantize(packed.reshape(n_out, -1), tensor.type)
        made = tensors[tensor.name]
        assert made.type == ggml.fit_type(quant.removesuffix("_S"), tensor.shape[0])
        wanted = np.memmap(path, np.uint8, "r", made.offset, (made.n_bytes,))
        assert np.array_equal(ggml.quantize(weights, made.type).ravel(), wanted)
    logged = set(re.findall(r"for type\s+(\S+)\) -> falling back to\s+(\S+)", log))
    assert bool(logged) == ("_K" in quant)  # rows of 576 have no whole blocks of 256
    for wanted_type, got in logged:
        assert ggml.FALLBACKS[wanted_type.upper()] == got.upper()
