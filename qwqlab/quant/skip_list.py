"""Which modules stay in 16 bits: skip lists, as transformers reads them and as a load obeys them.

An entry of `llm_int8_skip_modules` is a regular expression that a module's name begins with, or a
text that it ends in. One that fits nothing is passed over in silence; "model.layers.1" fits layers
10 to 19 too; and a list without "lm_head" quantises the head. So a list is tried on a model's names
before it is believed, and a loaded model is looked at.

On some CPUs (AVX512-BF16) bitsandbytes repacks 4-bit weights in place at the first forward pass in
eval mode, and then neither their values nor gradients through them are right. That is switched off
in every module that is loaded to the CPU; on a card nothing is repacked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import files
from ..errors import SettingError
from .checkpoint import HEAD, Checkpoint, Linear, free_memory, list_linears, to_gguf
from .codecs import BnbCodec, import_bitsandbytes

MOST = 10_000  # entries, which take some seconds on the modules of QwQ-32B


@dataclass(frozen=True)
class Resolved:
    """What a skip list does to a model.

    kept:  modules that stay in 16 bits. dead: entries that fit no linear module.
    """

    kept: tuple[str, ...]
    dead: tuple[str, ...]


def resolve_skip_list(skip: Sequence[str] | None, linears: Sequence[Linear]) -> Resolved:
    """Try a skip list on a model's linear modules; None is transformers' own choice, the head.

    Raise SettingError for what is no list of names, or an entry that is no regular expression, on
    which transformers would end.

    >>> pair = [Linear(f"model.layers.{k}.mlp.up_proj", 8, 8) for k in (1, 10)]
    >>> len(resolve_skip_list(["model.layers.1"], pair).kept)
    2
    >>> resolve_skip_list(["layers.1.mlp"], pair).dead
    ('layers.1.mlp',)
    """
    if skip is None:
        return Resolved(tuple(linear.name for linear in linears if linear.is_head), ())
    fits = {
        entry: [each.name for each in linears if _fits(entry, each.name)]
        for entry in check_skip_list(skip)
    }
    chosen = {name for names in fits.values() for name in names}
    return Resolved(
        tuple(linear.name for linear in linears if linear.name in chosen),
        tuple(entry for entry, names in fits.items() if not names),
    )


def _fits(entry: str, name: str) -> bool:
    from transformers.quantizers.quantizers_utils import should_convert_module

    try:
        return not should_convert_module(name, [entry])
    except re.error as error:
        raise SettingError(f"{entry!r} in a skip list is no regular expression: {error}") from error


def make_skip_list(keep: Iterable[str], linears: Sequence[Linear]) -> list[str]:
    """Return a skip list that keeps just these modules and the head; SettingError if none does."""
    wanted = {*keep, *(linear.name for linear in linears if linear.is_head)}
    skip = [linear.name for linear in linears if linear.name in wanted]
    kept = resolve_skip_list(skip, linears).kept
    if set(kept) != wanted:
        odd = sorted(wanted ^ set(kept))
        raise SettingError(f"no skip list keeps just these modules: {', '.join(odd[:5])}")
    return skip


def read_skip_file(path: Path) -> list[str]:
    """Return the skip list in a JSON file; raise SettingError if there is none.

    The file holds a list of names, or an object with one under "skip", as `select` writes it, or
    under "llm_int8_skip_modules".
    """
    values = files.parse_json(path)
    if isinstance(values, dict):
        values = values.get("skip", values.get("llm_int8_skip_modules"))
    return list(check_skip_list(values, str(path)))


def check_skip_list(skip: Any, where: str = "a skip list") -> tuple[str, ...]:
    """Return the entries of a skip list; raise SettingError, naming `where`, if it is none.

    transformers would read a text letter by letter, and end on entries of another type.
    """
    if isinstance(skip, (list, tuple, set)) and all(isinstance(entry, str) for entry in skip):
        if len(skip) > MOST:
            raise SettingError(
                f"{where} has {len(skip):,} entries, and each is tried on every module; give at "
                f"most {MOST:,}: one that begins many names, such as model.layers.1, keeps them all"
            )
        return tuple(skip)
    raise SettingError(
        f"{where} holds {str(skip)[:40]!r}, which is no list of module names; write it as a list, "
        'such as ["lm_head"]'
    )


def bnb_options(skip: Sequence[str], codec: BnbCodec, dtype: str = "bfloat16") -> dict[str, Any]:
    """Return the arguments of transformers' BitsAndBytesConfig, whose blocks are always of 64.

    dtype: of the products.
    """
    if codec.block != 64:
        raise SettingError(f"{codec.name}: transformers' BitsAndBytesConfig has blocks of 64 only")
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": codec.quant_type,
        "bnb_4bit_use_double_quant": codec.double,
        "bnb_4bit_compute_dtype": dtype,
        "llm_int8_skip_modules": list(skip),
    }


def tensor_types(keep: Iterable[str], linears: Sequence[Linear], tied: bool) -> list[str]:
    """Return llama-quantize's flags that keep the same modules, head and embedding in 16 bits.

    A name before the `=` is a regular expression that is searched for, so it is anchored.
    """
    wanted = {name for name in keep if name != HEAD}
    names = [to_gguf(linear.name) for linear in linears if linear.name in wanted]
    names += ["token_embd.weight"] if tied else ["token_embd.weight", to_gguf(HEAD)]
    patterns = [f"^{re.escape(name)}$=bf16" for name in names]
    return [word for pattern in patterns for word in ("--tensor-type", pattern)]


def load_quantised(
    checkpoint: Checkpoint,
    skip: Sequence[str],
    codec: BnbCodec,
    dtype: str = "bfloat16",
    load: Callable[..., Any] | None = None,
) -> Any:
    """Return the model as bitsandbytes holds it: in 4 bits but for a skip list.

    A model that is in 4 bits already is loaded as it is. On a machine with a GPU transformers
    puts it there.

    dtype: of all else, and of the products.
    load:  takes from_pretrained's options and returns a model; by default `Checkpoint.load`.
    """
    import torch

    options: dict[str, Any] = {"dtype": getattr(torch, dtype)}
    if not checkpoint.quantisation:
        options["quantization_config"] = _make_config(skip, codec, dtype)
    model = load(**options) if load else checkpoint.load(packed=True, **options)
    for module in _four_bit(model).values():
        if checkpoint.quantisation:  # its own configuration may name another
            module.compute_dtype = options["dtype"]
        if module.weight.device.type == "cpu":
            module.support_avx512bf16_for_cpu = False
    return model


def load_in_4bit(
    checkpoint: Checkpoint,
    keep: Iterable[str],
    codec: BnbCodec,
    dtype: str = "bfloat16",
    load: Callable[..., Any] | None = None,
) -> Any:
    """Return the model in 4 bits, checked to keep just these modules and the head in 16.

    dtype, load: as in `load_quantised`. Raise SettingError if the model was loaded in another way.
    """
    linears = list_linears(checkpoint.skeleton())
    model = load_quantised(checkpoint, make_skip_list(keep, linears), codec, dtype, load)
    _verify(model, keep, linears)
    return model


def read_kept(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return the modules but the head that a model in 4 bits keeps in 16, by its configuration."""
    skip = checkpoint.quantisation.get("llm_int8_skip_modules")
    linears = list_linears(checkpoint.skeleton())
    kept = resolve_skip_list(skip, linears).kept
    return tuple(each.name for each in linears if each.name in kept and not each.is_head)


def verify_skip_list(
    checkpoint: Checkpoint, skip: Sequence[str], keep: Iterable[str], codec: BnbCodec
) -> str:
    """Load a model with a skip list and look at it; return in words how it was looked at.

    If memory has no room for the model, transformers replaces the modules of its skeleton: the
    same code on the same names, without weights. Raise SettingError unless just `keep` and the
    head are in 16 bits.
    """
    room = checkpoint.n_bytes < free_memory()
    model = load_quantised(checkpoint, skip, codec) if room else replace(checkpoint, skip, codec)
    _verify(model, keep, list_linears(checkpoint.skeleton()))
    return "verified on the loaded model" if room else "verified on the model without weights"


def replace(checkpoint: Checkpoint, skip: Sequence[str], codec: BnbCodec) -> Any:
    """Return a model's skeleton, its linear modules replaced as a load with a skip list would."""
    from transformers.quantizers import AutoHfQuantizer

    model = checkpoint.skeleton()
    quantizer: Any = AutoHfQuantizer.from_config(_make_config(skip, codec, "bfloat16"))
    quantizer.preprocess_model(model, device_map=None)
    return model


def _make_config(skip: Sequence[str], codec: BnbCodec, dtype: str) -> Any:
    import_bitsandbytes()
    import transformers

    config: Any = transformers.BitsAndBytesConfig
    return config(**bnb_options(skip, codec, dtype))


def _verify(model: Any, keep: Iterable[str], linears: Sequence[Linear]) -> None:
    wanted = {*keep, *(each.name for each in linears if each.is_head)}
    packed = set(_four_bit(model))
    wrong = [each.name for each in linears if (each.name in packed) == (each.name in wanted)]
    if wrong:
        raise SettingError(
            f"{len(wrong)} modules were not loaded as the skip list says, {min(wrong)} among them"
        )


def _four_bit(model: Any) -> dict[str, Any]:
    import_bitsandbytes()
    import bitsandbytes

    kind = bitsandbytes.nn.Linear4bit
    return {name: module for name, module in model.named_modules() if isinstance(module, kind)}
