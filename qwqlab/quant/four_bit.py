"""A model in 4 bits, as bitsandbytes holds it: loaded, looked at, and kept from changing.

On some CPUs (AVX512-BF16) bitsandbytes repacks 4-bit weights in place at the first forward pass in
eval mode, and then neither their values nor gradients through them are right. That is switched off
in every model that is loaded here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..errors import ModelFileError, SettingError
from .checkpoint import Checkpoint, free_memory, list_linears
from .codecs import BnbCodec, import_bitsandbytes
from .linears import HEAD, Linear
from .skip_list import bnb_options, resolve


def load_quantised(
    checkpoint: Checkpoint, skip: Sequence[str], codec: BnbCodec, dtype: str = "bfloat16"
) -> Any:
    """The model with its linear modules in 4 bits but for a skip list, as bitsandbytes holds it.

    dtype: of all else, and of the products.
    """
    import torch
    import transformers

    import_bitsandbytes()
    options: Any = transformers.BitsAndBytesConfig
    config = options(**{**bnb_options(skip, codec), "bnb_4bit_compute_dtype": dtype})
    loaded = checkpoint.load(quantization_config=config, dtype=getattr(torch, dtype))
    return stop_repacking(loaded)


def load_packed(checkpoint: Checkpoint, keep: Iterable[str]) -> Any:
    """A model that is in 4 bits already, as bitsandbytes holds it, but for `keep` and the head."""
    import torch

    import_bitsandbytes()
    model = stop_repacking(checkpoint.load(packed=True, dtype=torch.bfloat16))
    verify_loaded(model, keep, list_linears(checkpoint.skeleton()))
    return model


def read_kept(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The linear modules but the head that a model in 4 bits keeps in 16, by its configuration.

    ModelFileError where it is not bitsandbytes' 4 bits that it is in.
    """
    found = checkpoint.quantisation
    if found.get("quant_method") != "bitsandbytes" or not found.get("load_in_4bit"):
        raise ModelFileError(
            f"{checkpoint.path} is quantised by {found.get('quant_method')!r}, not to 4 bits by "
            "bitsandbytes; give another, or its 16-bit original."
        )
    skip = found.get("llm_int8_skip_modules")
    linears = list_linears(checkpoint.skeleton())
    return tuple(name for name in resolve(skip, linears).kept if name != HEAD)


def stop_repacking(model: Any) -> Any:
    """Keep bitsandbytes from repacking a model's 4-bit weights on the CPU; gives the model."""
    for module in _four_bit(model).values():
        module.support_avx512bf16_for_cpu = False
    return model


def verify(
    checkpoint: Checkpoint, skip: Sequence[str], keep: Iterable[str], codec: BnbCodec
) -> str:
    """Load a model with a skip list and look at it; how it was looked at, in words.

    Where memory has no room for the model, transformers replaces the modules of its skeleton: the
    same code on the same names, without weights. SettingError as `verify_loaded`.
    """
    room = checkpoint.n_bytes < free_memory()
    model = load_quantised(checkpoint, skip, codec) if room else replace(checkpoint, skip, codec)
    verify_loaded(model, keep, list_linears(checkpoint.skeleton()))
    return "verified on the loaded model" if room else "verified on the model without weights"


def replace(checkpoint: Checkpoint, skip: Sequence[str], codec: BnbCodec) -> Any:
    """The skeleton of a model, its linear modules replaced as a load with a skip list would."""
    import transformers
    from transformers.quantizers import AutoHfQuantizer

    options: Any = transformers.BitsAndBytesConfig
    quantizer: Any = AutoHfQuantizer.from_config(options(**bnb_options(skip, codec)))
    model = checkpoint.skeleton()
    quantizer.preprocess_model(model, device_map=None)
    return model


def verify_loaded(model: Any, keep: Iterable[str], linears: Sequence[Linear]) -> None:
    """SettingError unless a loaded model holds these modules and the head in 16 bits, no others."""
    wanted = {*keep, HEAD}
    packed = set(_four_bit(model))
    wrong = {
        linear.name for linear in linears if (linear.name in packed) == (linear.name in wanted)
    }
    if wrong:
        raise SettingError(
            f"{len(wrong)} modules were not loaded as the skip list says, {min(wrong)} among them"
        )


def _four_bit(model: Any) -> dict[str, Any]:
    import bitsandbytes

    kind = bitsandbytes.nn.Linear4bit
    return {name: module for name, module in model.named_modules() if isinstance(module, kind)}
