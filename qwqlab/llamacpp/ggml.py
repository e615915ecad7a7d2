"""ggml's tensor types: their blocks, their names, and llama.cpp's own quantiser for one matrix.

`ggml_quantize_chunk` is what llama-quantize calls for each tensor of a file, so the bytes are the
same; gguf, llama.cpp's own Python package, reads them back. Where a row doesn't divide into a
type's blocks, `fit_type` names the type that llama-quantize takes instead. A test compares the
types' numbers with ggml.h and with gguf-py's constants.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

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


TENSOR_TYPES: dict[int, TensorType] = {
    0: TensorType("F32", 1, 4),
    1: TensorType("F16", 1, 2),
    2: TensorType("Q4_0", 32, 18),
    3: TensorType("Q4_1", 32, 20),
    6: TensorType("Q5_0", 32, 22),
    7: TensorType("Q5_1", 32, 24),
    8: TensorType("Q8_0", 32, 34),
    9: TensorType("Q8_1", 32, 36),
    10: TensorType("Q2_K", 256, 84),
    11: TensorType("Q3_K", 256, 110),
    12: TensorType("Q4_K", 256, 144),
    13: TensorType("Q5_K", 256, 176),
    14: TensorType("Q6_K", 256, 210),
    15: TensorType("Q8_K", 256, 292),
    16: TensorType("IQ2_XXS", 256, 66),
    17: TensorType("IQ2_XS", 256, 74),
    18: TensorType("IQ3_XXS", 256, 98),
    19: TensorType("IQ1_S", 256, 50),
    20: TensorType("IQ4_NL", 32, 18),
    21: TensorType("IQ3_S", 256, 110),
    22: TensorType("IQ2_S", 256, 82),
    23: TensorType("IQ4_XS", 256, 136),
    24: TensorType("I8", 1, 1),
    25: TensorType("I16", 1, 2),
    26: TensorType("I32", 1, 4),
    27: TensorType("I64", 1, 8),
    28: TensorType("F64", 1, 8),
    29: TensorType("IQ1_M", 256, 56),
    30: TensorType("BF16", 1, 2),
    34: TensorType("TQ1_0", 256, 54),
    35: TensorType("TQ2_0", 256, 66),
    39: TensorType("MXFP4", 32, 17),
    40: TensorType("NVFP4", 64, 36),
    41: TensorType("Q1_0", 128, 18),
    42: TensorType("Q2_0", 64, 18),
}

FILE_TYPES: dict[int, str] = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4_MOE",
    39: "NVFP4",
    40: "Q1_0",
    41: "Q2_0",
}

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
    from gguf import GGMLQuantizationType, quants

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
