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
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import torch

from ..errors import SettingError
from ..llamacpp import TYPES, Packed, dequantize, fit_type, quantize

BLOCKS = (32, 64, 128, 256, 512, 1024, 2048, 4096)
SLICE = 1 << 20
"""Numbers of a matrix that are worked on at a time, so that a large one is held once."""
FOUR_BIT = ("nf4", "nf4-dq", "fp4", "fp4-dq")


class Encoded(Protocol):
    """A matrix in few bits. n_bytes counts the scales; type is what it is really stored in."""

    type: str
    n_bytes: int

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """Return rows start to stop, decoded: (stop - start) x n_in, float32.

        `start` is a multiple of the codec's `step`.
        """


class Codec(Protocol):
    """A way to store matrices in few bits."""

    @property
    def name(self) -> str: ...

    def step(self, n_in: int) -> int:
        """Return the least number of rows that ends where a block ends."""

    def encode(self, weight: torch.Tensor) -> Encoded:
        """Encode a matrix of n_out x n_in floats."""


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
        return self.block // math.gcd(n_in, self.block)

    def encode(self, weight: torch.Tensor) -> BnbEncoded:
        """Encode a slice of rows at a time: bitsandbytes makes several copies of its input."""
        functional = import_bitsandbytes()
        n_out, n_in = weight.shape
        step = self.step(n_in)
        n_rows = max(1, SLICE // (n_in * step)) * step
        # Made before the slices: kept parts among freed ones would keep the heap from shrinking.
        packed = torch.empty(math.ceil(weight.numel() / 2), dtype=torch.uint8)
        scales = torch.empty(math.ceil(weight.numel() / self.block))
        for start in range(0, n_out, n_rows):
            rows = weight[start : start + n_rows].contiguous()
            part, state = functional.quantize_4bit(
                rows, blocksize=self.block, quant_type=self.quant_type
            )
            first = start * n_in
            packed[first // 2 : first // 2 + part.numel()] = part.flatten()
            scales[first // self.block : first // self.block + state.absmax.numel()] = state.absmax
        return BnbEncoded(self, weight, packed, scales)


class BnbEncoded:
    """A matrix that bitsandbytes packed.

    The scales of double quantisation are those of all the matrix less their mean, in blocks of
    256, as in its `quantize_4bit(compress_statistics=True)`.
    """

    def __init__(
        self, codec: BnbCodec, weight: torch.Tensor, packed: torch.Tensor, scales: torch.Tensor
    ) -> None:
        self.type = codec.name
        self._codec = codec
        self._n_in, self._dtype = weight.shape[1], weight.dtype
        self._packed = packed
        self._scales = scales
        self.n_bytes = packed.nbytes + scales.nbytes
        if codec.double:
            functional = import_bitsandbytes()
            offset = scales.mean()
            small, state = functional.quantize_blockwise(scales - offset, blocksize=256)
            self._scales = functional.dequantize_blockwise(small, state) + offset
            self.n_bytes = packed.nbytes + small.nbytes + state.absmax.nbytes + offset.nbytes

    def rows(self, start: int, stop: int) -> torch.Tensor:
        functional = import_bitsandbytes()
        block = self._codec.block
        first, last = start * self._n_in, stop * self._n_in
        # Flat: on CPUs bitsandbytes 0.50 decodes a matrix wrongly whose rows end within a block.
        state = functional.QuantState(
            absmax=self._scales[first // block : math.ceil(last / block)],
            shape=torch.Size((last - first,)),
            dtype=self._dtype,
            blocksize=block,
            code=functional.get_4bit_type(self._codec.quant_type, device="cpu"),
            quant_type=self._codec.quant_type,
        )
        packed = self._packed[first // 2 : math.ceil(last / 2)].unsqueeze(1)
        flat: torch.Tensor = functional.dequantize_4bit(packed, state)
        return flat.float().view(stop - start, self._n_in)


@dataclass(frozen=True)
class GgmlCodec:
    """A tensor type of ggml, by llama.cpp's own quantiser."""

    name: str

    def step(self, n_in: int) -> int:
        return 1

    def encode(self, weight: torch.Tensor) -> GgmlEncoded:
        kind = fit_type(self.name, weight.shape[1])
        return GgmlEncoded(kind, quantize(weight.float().numpy(), kind))


class GgmlEncoded:
    """A matrix that ggml packed."""

    def __init__(self, kind: str, packed: Packed) -> None:
        self.type = kind
        self.n_bytes = packed.nbytes
        self._packed = packed

    def rows(self, start: int, stop: int) -> torch.Tensor:
        return torch.from_numpy(dequantize(self._packed[start:stop], self.type))
