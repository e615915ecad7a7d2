"""Ways to store a matrix in few bits: bitsandbytes' nf4 and fp4, and the tensor types of ggml.

A `Codec` encodes a whole matrix; the `Encoded` gives its rows back a slice at a time, so that no
second copy of a large matrix is ever held in 32 bits.

Names: "nf4", "fp4" (blocks of 64); "-dq" behind them for double quantisation, whose scales are
themselves in 8 bits; "-b32" for another size of block; "Q4_K" and its like for ggml.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from ..errors import SettingError
from ..llamacpp import TYPES, dequantize, fit_type, quantize

BLOCKS = (32, 64, 128, 256, 512, 1024, 2048, 4096)
SLICE = 1 << 20
"""Numbers of a matrix that are worked on at a time, so that a large one is held once."""
FOUR_BIT = ("nf4", "nf4-dq", "fp4", "fp4-dq")


@dataclass(frozen=True)
class Encoded:
    """A matrix in few bits.

    type:    what it is really stored in. n_bytes counts the scales.
    rows:    rows(start, stop) decodes these rows: (stop - start) x n_in, float32. `start` is a
             multiple of the codec's `step`.
    """

    type: str
    n_bytes: int
    rows: Callable[[int, int], torch.Tensor]


def find_codec(name: str) -> Codec:
    """Return the codec of that name; raise SettingError for an unknown one.

    >>> find_codec("nf4-dq-b128")
    BnbCodec(quant_type='nf4', double=True, block=128)
    >>> find_codec("q4_0").name
    'Q4_0'
    """
    found = re.fullmatch(r"(nf4|fp4)(-dq)?(?:-b(\d+))?", name.strip().lower())
    if found is None:
        if name.upper() not in TYPES:
            known = ", ".join((*FOUR_BIT, *TYPES))
            raise SettingError(f"{name!r} is not a type that the lab can make; it has {known}")
        return GgmlCodec(name.upper())
    block = int(found[3] or 64)
    if block not in BLOCKS:
        raise SettingError(f"{name!r}: bitsandbytes has blocks of {', '.join(map(str, BLOCKS))}")
    return BnbCodec(found[1], found[2] is not None, block)


@lru_cache(maxsize=1)
def import_bitsandbytes() -> Any:
    """Return bitsandbytes.functional, without its advice to install kernels from a hub."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        import bitsandbytes.functional as functional
    finally:
        logging.disable(before)
    return functional


@dataclass(frozen=True)
class BnbCodec:
    """4 bits a number and a scale for each block, by bitsandbytes (Dettmers et al. 2023, QLoRA).

    quant_type: "nf4", whose 16 levels are quantiles of a Gaussian, or "fp4".
    double:     the scales in 8 bits, in blocks of 256, instead of in float32.
    """

    quant_type: str = "nf4"
    double: bool = False
    block: int = 64

    @property
    def name(self) -> str:
        size = "" if self.block == 64 else f"-b{self.block}"
        return self.quant_type + ("-dq" if self.double else "") + size

    def step(self, n_in: int) -> int:
        """Return the least number of rows that ends where a block ends."""
        return self.block // math.gcd(n_in, self.block)

    def encode(self, weight: torch.Tensor) -> Encoded:
        """Encode a matrix of n_out x n_in floats.

        It goes a slice of rows at a time: bitsandbytes makes several copies of its input.
        """
        functional = import_bitsandbytes()
        n_out, n_in = weight.shape
        step = self.step(n_in)
        n_rows = max(1, SLICE // (n_in * step)) * step
        # Made before the slices: kept parts among freed ones would keep the heap from shrinking.
        device = weight.device
        packed = torch.empty(math.ceil(weight.numel() / 2), dtype=torch.uint8, device=device)
        scales = torch.empty(math.ceil(weight.numel() / self.block), device=device)
        for start in range(0, n_out, n_rows):
            rows = weight[start : start + n_rows].contiguous()
            part, state = functional.quantize_4bit(
                rows, blocksize=self.block, quant_type=self.quant_type
            )
            first = start * n_in
            packed[first // 2 : first // 2 + part.numel()] = part.flatten()
            scales[first // self.block : first // self.block + state.absmax.numel()] = state.absmax
        n_bytes = packed.nbytes + scales.nbytes
        if self.double:
            # As its quantize_4bit(compress_statistics=True) does with those of a whole matrix.
            offset = scales.mean()
            small, state = functional.quantize_blockwise(scales - offset, blocksize=256)
            scales = functional.dequantize_blockwise(small, state) + offset
            n_bytes = packed.nbytes + small.nbytes + state.absmax.nbytes + offset.nbytes
        dtype = weight.dtype

        def decode(start: int, stop: int) -> torch.Tensor:
            first, last = start * n_in, stop * n_in
            # Flat: on CPUs bitsandbytes 0.50 decodes a matrix wrongly whose rows end in a block.
            state = functional.QuantState(
                absmax=scales[first // self.block : math.ceil(last / self.block)],
                shape=torch.Size((last - first,)),
                dtype=dtype,
                blocksize=self.block,
                quant_type=self.quant_type,
            )
            part = packed[first // 2 : math.ceil(last / 2)].unsqueeze(1)
            flat: torch.Tensor = functional.dequantize_4bit(part, state)
            return flat.float().view(stop - start, n_in)

        return Encoded(self.name, n_bytes, decode)


@dataclass(frozen=True)
class GgmlCodec:
    """A tensor type of ggml, by llama.cpp's own quantiser."""

    name: str

    def step(self, n_in: int) -> int:
        """Return 1: a block ends with each row."""
        return 1

    def encode(self, weight: torch.Tensor) -> Encoded:
        """Encode a matrix of n_out x n_in floats."""
        kind, device = fit_type(self.name, weight.shape[1]), weight.device
        packed = quantize(weight.float().cpu().numpy(), kind)

        def decode(start: int, stop: int) -> torch.Tensor:
            return torch.from_numpy(dequantize(packed[start:stop], kind)).to(device)

        return Encoded(kind, packed.nbytes, decode)


Codec = BnbCodec | GgmlCodec
