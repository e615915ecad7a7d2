"""Variants of a model as GGUFs: its weights decoded from few bits, or some tensors in more bits."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from .. import files, gguf_file
from ..requantize import check_quant, requantize, run_quantize
from .codecs import Codec
from .linears import HEAD, to_gguf
from .weights import GgufWeights


def write_variant(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    codec: Codec,
    keep: Collection[str] = (),
) -> Path:
    """Write the F16 copy of a model with its linear modules decoded from a codec.

    keep: modules that stay as they are; the head always does. F16 holds what nf4 decodes to within
    2^-11 of each number. What `requantize` raises, and FileError where the disk has no room.
    """
    weights = GgufWeights(gguf_file.inspect(Path(source)))
    plain = requantize(source, "F16")
    tensors = {tensor.name: tensor for tensor in gguf_file.inspect(plain).tensors}
    with files.replacing(Path(target)) as part:
        shutil.copyfile(plain, part)
        for linear in weights.linears:
            if linear.name == HEAD or linear.name in keep:
                continue
            decoded = codec.encode(weights.read(linear)).rows(0, linear.n_out)
            place = tensors[to_gguf(linear.name)]
            shape = (linear.n_out, linear.n_in)
            numbers = np.memmap(part, np.float16, "r+", place.offset, shape)
            numbers[:] = decoded.numpy()
            numbers.flush()
    return Path(target)


def write_dynamic(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    quant: str,
    tensor_types: Sequence[str] = (),
) -> Path:
    """Quantise a model with llama-quantize, some tensors to types of their own.

    tensor_types: flags such as `skip_list.tensor_types` makes. SettingError for an unknown quant,
    ToolchainError with llama-quantize's own words when it fails.
    """
    with files.replacing(Path(target)) as part:
        args = ["--allow-requantize", *tensor_types, source, part, check_quant(quant)]
        run_quantize(args, Path(target))
    return Path(target)
