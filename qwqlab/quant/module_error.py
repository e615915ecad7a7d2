"""What storing one matrix in few bits does to it, and to what comes out of it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ..errors import ModelFileError
from .codecs import SLICE, Codec
from .linears import Linear

CHUNK = 1 << 14


@dataclass(frozen=True)
class ModuleError:
    """One linear module in few bits, W its weight and Q what is decoded from them.

    type:           what it was stored in, where a row doesn't divide into the blocks asked for.
    weight_rel_mse: ||W - Q||^2 / ||W||^2; 0 is exact, 1 as bad as all zeros.
    output_rel_mse: ||X W^T - X Q^T||^2 / ||X W^T||^2 over the rows X that the module was given,
                    a token each; None where it was given none.
    cosine:         between W and Q as vectors.
    kurtosis:       of W, its fourth central moment over the square of its variance: 3 for a
                    Gaussian, more where the tails are heavy.
    outlier_ratio:  largest |W| over the root mean square of W; input_outlier_ratio the same of X.
    bytes_16bit:    in 16 bits; n_bytes with Q's scales.
    """

    name: str
    kind: str
    layer: int | None
    n_out: int
    n_in: int
    type: str
    weight_rel_mse: float
    output_rel_mse: float | None
    cosine: float
    kurtosis: float
    outlier_ratio: float
    input_outlier_ratio: float | None
    bytes_16bit: int
    n_bytes: int

    @property
    def extra_bytes(self) -> int:
        """What keeping the module in 16 bits costs over its few bits."""
        return self.bytes_16bit - self.n_bytes

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values, n_bytes as "bytes_4bit"; `from_dict` is its inverse."""
        values = asdict(self)
        values["bytes_4bit"] = values.pop("n_bytes")
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModuleError:
        """The error that `to_dict` described."""
        values = dict(values)
        return cls(n_bytes=values.pop("bytes_4bit"), **values)


class Inputs:
    """What a module is given: n_tokens x n_in in float32.

    How large an output is depends on the inputs through their Gram matrix X^T X alone, which
    modules of the same inputs (q, k and v; gate and up) share.
    """

    def __init__(self, x: torch.Tensor) -> None:
        self.x = x
        scale = math.sqrt(_dot(x, x) / x.numel())
        self.outlier_ratio = _ratio(max(abs(float(end)) for end in torch.aminmax(x)), scale)
        self._gram: torch.Tensor | None = None

    def square(self, weight: torch.Tensor) -> float:
        """||X weight^T||^2, by whichever way multiplies less."""
        n_tokens, n_in = self.x.shape
        if n_tokens * len(weight) > n_in * len(weight) + (self._gram is None) * n_tokens * n_in:
            return _dot(weight @ self.gram, weight)
        outputs = self.x @ weight.T
        return _dot(outputs, outputs)

    @property
    def gram(self) -> torch.Tensor:
        if self._gram is None:
            self._gram = self.x.T @ self.x
        return self._gram


def measure(
    linear: Linear,
    weight: torch.Tensor,
    codec: Codec,
    inputs: Inputs | None = None,
    outputs: torch.Tensor | None = None,
) -> ModuleError:
    """Encode a weight and compare, a slice of its rows at a time.

    outputs: X W^T, if it is known already. ModelFileError for numbers that are not finite.
    """
    encoded = codec.encode(weight)
    step = codec.step(linear.n_in)
    n_rows = max(1, SLICE // (linear.n_in * step)) * step
    moments = [0.0] * 5
    lost = product = decoded_square = largest = output_lost = 0.0
    output = 0.0 if outputs is None else _dot(outputs, outputs)
    for start in range(0, linear.n_out, n_rows):
        rows = weight[start : start + n_rows].float()
        decoded = encoded.rows(start, start + len(rows))
        square = rows * rows
        sums = float(rows.sum(dtype=torch.float64)), _dot(rows, rows), _dot(square, rows)
        for power, total in enumerate((rows.numel(), *sums, _dot(square, square))):
            moments[power] += total
        largest = max(largest, *(abs(float(end)) for end in torch.aminmax(rows)))
        product += _dot(rows, decoded)
        decoded_square += _dot(decoded, decoded)
        difference = rows - decoded
        lost += _dot(difference, difference)
        if inputs is not None:
            output += inputs.square(rows) if outputs is None else 0.0
            output_lost += inputs.square(difference)
    norm = moments[2]
    if not math.isfinite(norm + lost + output + output_lost):
        raise ModelFileError(f"{linear.name} holds or makes numbers that are not finite.")
    return ModuleError(
        name=linear.name,
        kind=linear.kind,
        layer=linear.layer,
        n_out=linear.n_out,
        n_in=linear.n_in,
        type=encoded.type,
        weight_rel_mse=_ratio(lost, norm),
        output_rel_mse=None if inputs is None else _ratio(output_lost, output),
        cosine=_ratio(product, math.sqrt(norm * decoded_square)),
        kurtosis=_kurtosis(moments),
        outlier_ratio=_ratio(largest, math.sqrt(norm / moments[0])),
        input_outlier_ratio=None if inputs is None else inputs.outlier_ratio,
        bytes_16bit=2 * linear.n_weights,
        n_bytes=encoded.n_bytes,
    )


def _dot(a: torch.Tensor, b: torch.Tensor) -> float:
    """Their inner product: short sums in float32, and the sums summed in float64."""
    parts = zip(torch.split(a.flatten(), CHUNK), torch.split(b.flatten(), CHUNK), strict=True)
    return sum(float(torch.dot(*part)) for part in parts)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _kurtosis(moments: list[float]) -> float:
    """From the sums of the powers 0 to 4."""
    mean, second, third, fourth = (moment / moments[0] for moment in moments[1:])
    variance = second - mean**2
    central = fourth - 4 * mean * third + 6 * mean**2 * second - 3 * mean**4
    return _ratio(central, variance**2)
