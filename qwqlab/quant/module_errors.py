"""What few bits lose of each linear module: of its weights, and of what comes out of it.

One pass over a calibration text measures every module: the text runs through the model in 16 or
32 bits, and each module is compared where its inputs pass by. The model is read from its folder one
module at a time, so memory needn't hold it. Errors are kept as they are found.
"""

from __future__ import annotations

import contextlib
import json
import math
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .. import paths
from ..errors import ModelFileError
from .checkpoint import HEAD, Checkpoint, Linear
from .codecs import SLICE, Codec, find_codec
from .journal import Journal
from .theory import bounds
from .weights import FolderWeights, open_weights

N_TOKENS = 2048
CHUNK = 1 << 14


@dataclass(frozen=True)
class ModuleError:
    """One linear module in few bits, W its weight and Q what is decoded from them.

    type:           what it was stored in, which is another type than the codec's where a row
                    doesn't divide into its blocks.
    weight_rel_mse: ||W - Q||^2 / ||W||^2; 0 is exact, 1 as bad as all zeros.
    output_rel_mse: ||X W^T - X Q^T||^2 / ||X W^T||^2 over the rows X that the module was given,
                    one a token; None if it was given none.
    cosine:         between W and Q as vectors.
    kurtosis:       of W, its fourth central moment over the square of its variance: 3 for a
                    Gaussian, more where the tails are heavy.
    outlier_ratio:  largest |W| over the root mean square of W; input_outlier_ratio the same of X.
    bytes_16bit:    in 16 bits; n_bytes in few bits, with Q's scales.
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
        """Return what keeping the module in 16 bits costs over its few bits."""
        return self.bytes_16bit - self.n_bytes

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values, n_bytes as "bytes_4bit"."""
        values = asdict(self)
        values["bytes_4bit"] = values.pop("n_bytes")
        return values


OnModule = Callable[[int, int, ModuleError], None]
"""Called after each module with how many are done, how many there are, and its error."""


@dataclass(frozen=True)
class QuantErrors:
    """The errors of all modules of a model in one codec, in the model's order.

    whole is False if the pass was stopped: run it again, and it goes on. n_tokens of the text
    calibrated the outputs, 0 if only weights were measured. precision is the grid that the weights
    lay on before (see `Checkpoint.precision`). peak_rss_bytes is the process's, from its start.
    """

    model: str
    codec: str
    precision: str
    n_tokens: int
    modules: tuple[ModuleError, ...]
    whole: bool
    theory: dict[str, float]
    seconds: float
    peak_rss_bytes: int

    @property
    def quantised(self) -> tuple[ModuleError, ...]:
        """Return the modules that transformers quantises if told nothing: all but the head."""
        return tuple(module for module in self.modules if module.name != HEAD)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {**vars(self), "modules": [module.to_dict() for module in self.modules]}


class _Stopped(Exception):
    """Raised within a pass when its `stop` says so."""


def quant_error(
    model: str | Path | Checkpoint,
    codec: str = "nf4",
    text: str | Path | None = None,
    outputs: bool = True,
    n_tokens: int = N_TOKENS,
    on_module: OnModule | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> QuantErrors:
    """Measure every linear module of a model in a codec; see `ModuleError` for what is measured.

    text:    a file to calibrate with, by default the lab's own, data/texts/calibration.txt; its
             first n_tokens are read in contexts of 512.
    outputs: False measures weights alone and needs no text.
    stop:    asked between two modules.

    Each module's error is kept in models_dir() as soon as it is known: a pass that was stopped or
    killed goes on where it was, and a finished one is not run again. Raise SettingError, FetchError
    or ModelFileError for what can't be used.
    """
    started = time.perf_counter()
    checkpoint = model if isinstance(model, Checkpoint) else Checkpoint(model)
    chosen = find_codec(codec)
    path = Path(text or paths.data_dir() / "texts" / "calibration.txt")
    tokens = checkpoint.read_blocks(path, n_tokens) if outputs else None
    fields = list(ModuleError.__dataclass_fields__)  # another version may have others
    read = None if tokens is None else tokens.tolist()
    journal = Journal(
        "module-errors", json.dumps([fields, checkpoint.identify(), chosen.name, read])
    )
    known = {row["name"]: ModuleError(**row) for row in journal.rows}
    weights = open_weights(checkpoint)
    linears = weights.linears

    def keep(error: ModuleError) -> None:
        journal.add(asdict(error))
        known[error.name] = error
        if on_module:
            on_module(len(known), len(linears), error)
        if stop():
            raise _Stopped

    with contextlib.suppress(_Stopped):
        left = [linear for linear in linears if linear.name not in known]
        if left and tokens is not None:
            run_through(FolderWeights(checkpoint), chosen, tokens, keep, known)
        else:
            for linear in left:
                keep(measure_module(linear, weights.read(linear), chosen))
    return QuantErrors(
        model=checkpoint.title,
        codec=chosen.name,
        precision=checkpoint.precision,
        n_tokens=0 if tokens is None else tokens.numel(),
        modules=tuple(known[each.name] for each in linears if each.name in known),
        whole=len(known) == len(linears),
        theory=bounds(chosen.name),
        seconds=time.perf_counter() - started,
        peak_rss_bytes=peak_memory(),
    )


def run_through(
    weights: FolderWeights,
    codec: Codec,
    tokens: torch.Tensor,
    keep: Callable[[ModuleError], None],
    known: Mapping[str, ModuleError] = {},
) -> None:
    """Run blocks of tokens through a model once, and measure each linear module on the way.

    keep is called with each error as it is found; modules in `known` are run but not measured.
    """
    model = _load_all_but_linears(weights)

    def forward(linear: Linear, bias: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
        weight = weights.read(linear)
        outputs = _multiply(x, weight)
        if linear.name not in known:
            keep(measure_module(linear, weight, codec, x.reshape(-1, linear.n_in), outputs))
        return outputs if bias is None else outputs + bias

    for linear in weights.linears:
        module = model.get_submodule(linear.name)
        module.forward = partial(forward, linear, module.bias)
    with torch.inference_mode():
        model(tokens, use_cache=False)


def _multiply(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return x W^T in float32, a slice of W at a time where W is in 16 bits."""
    if weight.dtype == torch.float32:
        return x @ weight.T
    outputs = x.new_empty(*x.shape[:-1], len(weight))
    n_rows = max(1, SLICE // weight.shape[1])
    for start in range(0, len(weight), n_rows):
        outputs[..., start : start + n_rows] = x @ weight[start : start + n_rows].float().T
    return outputs


def _load_all_but_linears(weights: FolderWeights) -> Any:
    """Return the model of a folder with all but its linear modules in place, in float32.

    The embedding stays on the disk: only the rows of tokens that occur are read.
    """
    model = weights.model
    linears = {f"{linear.name}.weight" for linear in weights.linears}
    embedding = model.get_input_embeddings()
    for name, parameter in list(model.named_parameters()):
        module, _, attribute = name.rpartition(".")
        if parameter is embedding.weight:
            embedding.forward = partial(_look_up, weights.tensor(name))
        elif name not in linears:
            value = torch.nn.Parameter(weights.tensor(name).float(), requires_grad=False)
            setattr(model.get_submodule(module), attribute, value)
    return model


def _look_up(table: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return table[ids].float()


def measure_module(
    linear: Linear,
    weight: torch.Tensor,
    codec: Codec,
    x: torch.Tensor | None = None,
    outputs: torch.Tensor | None = None,
) -> ModuleError:
    """Encode a weight and compare, a slice of its rows at a time.

    x: what the module is given, n_tokens x n_in, and outputs: x W^T; both or neither. Raise
    ModelFileError for numbers that are not finite.
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
        largest = max(largest, _largest(rows))
        product += _dot(rows, decoded)
        decoded_square += _dot(decoded, decoded)
        difference = rows - decoded
        lost += _dot(difference, difference)
        if x is not None:
            moved = x @ difference.T
            output_lost += _dot(moved, moved)
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
        output_rel_mse=None if x is None else _ratio(output_lost, output),
        cosine=_ratio(product, math.sqrt(norm * decoded_square)),
        kurtosis=_kurtosis(moments),
        outlier_ratio=_ratio(largest, math.sqrt(norm / moments[0])),
        input_outlier_ratio=(
            None if x is None else _ratio(_largest(x), math.sqrt(_dot(x, x) / x.numel()))
        ),
        bytes_16bit=2 * linear.n_weights,
        n_bytes=encoded.n_bytes,
    )


def _dot(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return their inner product: short sums in float32, and the sums summed in float64."""
    parts = zip(torch.split(a.flatten(), CHUNK), torch.split(b.flatten(), CHUNK), strict=True)
    return sum(float(torch.dot(*part)) for part in parts)


def _largest(numbers: torch.Tensor) -> float:
    return max(abs(float(end)) for end in torch.aminmax(numbers))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _kurtosis(moments: list[float]) -> float:
    """Return it from the sums of the powers 0 to 4."""
    mean, second, third, fourth = (moment / moments[0] for moment in moments[1:])
    variance = second - mean**2
    central = fourth - 4 * mean * third + 6 * mean**2 * second - 3 * mean**4
    return _ratio(central, variance**2)


def peak_memory() -> int:
    """Return the most memory that this process has held, in bytes."""
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux's getrusage would count a parent that was larger.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
