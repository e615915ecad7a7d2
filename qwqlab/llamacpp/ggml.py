"""ggml's tensor types: their blocks, their names, and llama.cpp's own quantiser for one matrix.

`ggml_quantize_chunk` is what llama-quantize calls for each tensor of a file, so the bytes are the
same; gguf, llama.cpp's own Python package, reads them back and knows the types. Where a row doesn't
divide into a type's blocks, `fit_type` names the type that llama-quantize takes instead. A test
compares the types with those of the llama.cpp that we build.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType, quants

from ..errors import SettingError
from .tools import SUFFIX, library_dir

Matrix = npt.NDArray[np.float32]
Packed = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class TensorType:
    """A way to store numbers: `block` elements take `n_bytes` bytes."""

    name: str
    block: int
    n_bytes: int

    @property
    def bits(self) -> float:
        """The bits that an element takes, scales included.

        >>> TENSOR_TYPES[3].name, TENSOR_TYPES[3].bits
        ('Q4_1', 5.0)
        """
        return self.n_bytes * 8 / self.block


TENSOR_TYPES = {
    int(kind): TensorType(kind.name, block, n_bytes)
    for kind, (block, n_bytes) in GGML_QUANT_SIZES.items()
}
# Of a type that no file holds, gguf 0.19 has an earlier size; Q2_0 is newer than it.
TENSOR_TYPES[9], TENSOR_TYPES[42] = TensorType("Q8_1", 32, 36), TensorType("Q2_0", 64, 18)

FILE_TYPES = {
    int(kind): kind.name.removeprefix("ALL_").removeprefix("MOSTLY_")
    for kind in LlamaFileType
    if kind != LlamaFileType.GUESSED
}
FILE_TYPES[41] = "Q2_0"

_NUMBERS = {kind.name: number for number, kind in TENSOR_TYPES.items()}


def number_of(name: str) -> int:
    """Return ggml's number of a type, whatever the name's case.

    >>> number_of("q8_0")
    8
    """
    return _NUMBERS[name.upper()]


def bits_of(name: str) -> float:
    """Return the bits that an element of a type takes, scales included.

    >>> bits_of("q8_0")
    8.5
    """
    return TENSOR_TYPES[number_of(name)].bits


TYPES = ("Q2_K", "Q3_K", "IQ4_XS", "IQ4_NL", "Q4_0", "Q4_K", "Q4_1", "Q5_0", "Q5_K", "Q5_1",
         "Q6_K", "Q8_0", "BF16")  # fmt: skip
# src/llama-quant.cpp, tensor_type_fallback; a test compares them with llama-quantize's own log.
FALLBACKS = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "IQ4_XS": "IQ4_NL",
             "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}  # fmt: skip


def fit_type(name: str, n_in: int) -> str:
    """Return the type in which llama-quantize stores rows of n_in numbers when asked for `name`.

    >>> fit_type("Q4_K", 1536), fit_type("Q4_K", 576), fit_type("Q4_K", 100)
    ('Q4_K', 'Q5_0', 'F16')
    """
    for fitting in (name, FALLBACKS.get(name, name)):
        if n_in % TENSOR_TYPES[number_of(fitting)].block == 0:
            return fitting
    return "F16"


def quantize(weights: Matrix, name: str) -> Packed:
    """Return a matrix of n_out rows and n_in columns as n_out rows of bytes.

    Raise SettingError if n_in doesn't divide into the type's blocks; see `fit_type`.
    """
    weights = np.ascontiguousarray(weights, np.float32)
    n_out, n_in = weights.shape
    kind = TENSOR_TYPES[number_of(name)]
    if n_in % kind.block:
        raise SettingError(f"rows of {n_in} numbers do not divide into {name}'s {kind.block}")
    packed = np.empty((n_out, n_in // kind.block * kind.n_bytes), np.uint8)
    source = weights.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    target = packed.ctypes.data_as(ctypes.c_void_p)
    _library().ggml_quantize_chunk(number_of(name), source, target, 0, n_out, n_in, None)
    return packed


def dequantize(packed: Packed, name: str) -> Matrix:
    """Return the numbers of packed rows, as `quantize` gives them or a GGUF's tensor holds them."""
    return quants.dequantize(packed, GGMLQuantizationType[name])


@lru_cache(maxsize=1)
def _library() -> Any:
    library = ctypes.CDLL(str(library_dir() / f"libggml-base{SUFFIX}"))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int,
        ctypes.POINTER(ctypes.c_float),
        ctypes.c_void_p,
        *[ctypes.c_int64] * 3,
        ctypes.c_void_p,
    ]
    return library
