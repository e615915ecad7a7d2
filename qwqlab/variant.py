"""A GGUF whose weights are decoded from few bits: a variant that llama.cpp and the lab can run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from pathlib import Path

import numpy as np

from . import gguf_file
from .codecs import Codec
from .linears import HEAD, to_gguf
from .requantize import requantize
from .weights import GgufWeights


def write_variant(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    codec: Codec,
    keep: Collection[str] = (),
) -> Path:
    """Write the F16 copy of a model with its linear modules decoded from a codec.

    keep: modules that stay as they are; the head always does. F16 holds what nf4 decodes to within
    2^-11 of each number. What `requantize` raises, and OSError where the disk has no room.
    """
    weights = GgufWeights(gguf_file.inspect(Path(source)))
    plain = requantize(source, "F16")
    target = Path(target)
    shutil.copyfile(plain, target)
    tensors = {tensor.name: tensor for tensor in gguf_file.inspect(target).tensors}
    for linear in weights.linears:
        if linear.name == HEAD or linear.name in keep:
            continue
        decoded = codec.encode(weights.read(linear)).rows(0, linear.n_out)
        place = tensors[to_gguf(linear.name)]
        file = np.memmap(target, np.float16, "r+", place.offset, (linear.n_out, linear.n_in))
        file[:] = decoded.numpy()
        file.flush()
    return target
