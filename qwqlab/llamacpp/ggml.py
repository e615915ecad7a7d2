"""llama.cpp's own quantiser, called on one matrix at a time.

`ggml_quantize_chunk` is what llama-quantize calls for each tensor of a file, so the bytes are the
same; gguf, llama.cpp's own Python package, reads them back. Another type stands in where a row
doesn't divide into the type's blocks, as in llama-quantize.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import SettingError, ToolchainError
from . import tools
from .ggml_types import TENSOR_TYPES

TYPES = ("Q2_K", "Q3_K", "IQ4_XS", "IQ4_NL", "Q4_0", "Q4_K", "Q4_1", "Q5_0", "Q5_K", "Q5_1",
         "Q6_K", "Q8_0", "BF16")  # fmt: skip
# src/llama-quant.cpp, tensor_type_fallback; a test compares them with llama-quantize's own log.
FALLBACKS = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "IQ4_XS": "IQ4_NL",
             "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}  # fmt: skip

_NUMBERS = {kind.name: number for number, kind in TENSOR_TYPES.items()}

Matrix = npt.NDArray[np.float32]
Packed = npt.NDArray[np.uint8]


def fit_type(name: str, n_in: int) -> str:
    """The type that llama-quantize stores rows of n_in numbers in when asked for `name`.

    >>> fit_type("Q4_K", 1536), fit_type("Q4_K", 576), fit_type("Q4_K", 100)
    ('Q4_K', 'Q5_0', 'F16')
    """
    for fitting in (name, FALLBACKS.get(name, name)):
        if n_in % TENSOR_TYPES[_NUMBERS[fitting]].block == 0:
            return fitting
    return "F16"


def quantize(weights: Matrix, name: str) -> Packed:
    """A matrix of n_out rows and n_in columns as n_out rows of bytes of a type that fits it."""
    weights = np.ascontiguousarray(weights, np.float32)
    n_out, n_in = weights.shape
    kind = TENSOR_TYPES[_NUMBERS[name]]
    if n_in % kind.block:
        raise SettingError(f"rows of {n_in} numbers do not divide into {name}'s {kind.block}")
    packed = np.empty((n_out, n_in // kind.block * kind.n_bytes), np.uint8)
    source = weights.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    done = _library().ggml_quantize_chunk(
        *(_NUMBERS[name], source, packed.ctypes.data_as(ctypes.c_void_p), 0, n_out, n_in, None)
    )
    if done != packed.nbytes:
        raise ToolchainError(f"ggml wrote {done} bytes of {name} instead of {packed.nbytes}")
    return packed


def dequantize(packed: Packed, name: str) -> Matrix:
    """What `quantize` packed, as numbers again; also what stands in a GGUF under that type."""
    from gguf import GGMLQuantizationType, quants

    return quants.dequantize(packed, GGMLQuantizationType[name])


@lru_cache(maxsize=1)
def _library() -> Any:
    folder = tools.library_dir()
    found = sorted(folder.glob("*ggml-base.*"), key=lambda path: len(path.name))
    if not found:
        raise ToolchainError(f"{folder} holds no libggml-base; build llama.cpp with `make setup`.")
    library = ctypes.CDLL(str(found[0]))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int,
        ctypes.POINTER(ctypes.c_float),
        ctypes.c_void_p,
        *[ctypes.c_int64] * 3,
        ctypes.c_void_p,
    ]
    return library
