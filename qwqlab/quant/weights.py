"""The weights of linear modules: read one by one from a GGUF or safetensors, or written.

A module's error needs its weight alone, so a model of any size is read a module at a time.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import torch

from .. import files
from ..errors import ModelFileError
from ..llamacpp import dequantize
from ..models import GGUFInfo, check_quant, inspect, requantize, run_quantize
from .checkpoint import HEAD, KINDS, Checkpoint, Linear, list_linears, orient, to_gguf
from .codecs import Codec


class GgufWeights:
    """The linear modules of a GGUF, each dequantised when it is read.

    llama.cpp stores the rows of some models' q_proj and k_proj in another order than
    transformers; an error of a whole module does not depend on it.
    """

    def __init__(self, info: GGUFInfo) -> None:
        self._info = info
        tensors = {tensor.name: tensor for tensor in info.tensors}
        if "token_embd.weight" in tensors:  # a head that the file lacks shares the embedding
            tensors.setdefault(to_gguf(HEAD), tensors["token_embd.weight"])
        # In the model's order, which need not be the file's; each layer has some tensors.
        layers = range(info.n_tensors)
        names = [*(f"model.layers.{layer}.{kind}" for layer in layers for kind in KINDS), HEAD]
        self._tensors = {name: tensors[to_gguf(name)] for name in names if to_gguf(name) in tensors}
        self.linears = tuple(
            Linear(name, tensor.shape[1], tensor.shape[0], name == HEAD)
            for name, tensor in self._tensors.items()
        )
        if not self.linears:
            raise ModelFileError(f"{info.path} holds no linear module that the lab knows.")

    def read(self, linear: Linear) -> torch.Tensor:
        """Return its weight, n_out x n_in, float32."""
        tensor = self._tensors[linear.name]
        packed = np.memmap(self._info.path, np.uint8, "r", tensor.offset, (tensor.n_bytes,))
        try:
            numbers = dequantize(packed.reshape(linear.n_out, -1), tensor.type)
        except (KeyError, NotImplementedError) as error:
            raise ModelFileError(
                f"{self._info.path}: {tensor.name} is in {tensor.type}, which gguf cannot read."
            ) from error
        return torch.from_numpy(np.array(numbers, np.float32, copy=None))


class FolderWeights:
    """The linear modules of a folder of safetensors, each read when it is asked for.

    The bytes are mapped, not copied: they count as memory while the tensor is held, no longer.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._folder = checkpoint.folder
        self._files = _find_tensors(checkpoint.folder)
        self.model = checkpoint.skeleton()
        self._tied = getattr(self.model, "all_tied_weights_keys", None) or {}
        self.linears = list_linears(self.model)

    def read(self, linear: Linear) -> torch.Tensor:
        """Return its weight, n_out x n_in, in the file's own floats."""
        name = f"{linear.name}.weight"
        weight = orient(
            self.model.get_submodule(linear.name), self.tensor(self._tied.get(name, name))
        )
        if tuple(weight.shape) != (linear.n_out, linear.n_in) or not weight.is_floating_point():
            raise ModelFileError(
                f"{self._folder}: {linear.name}.weight is {tuple(weight.shape)} of {weight.dtype}, "
                f"not {(linear.n_out, linear.n_in)} of floats; is it quantised already?"
            )
        return weight

    def tensor(self, name: str) -> torch.Tensor:
        """Return any tensor of the folder; raise ModelFileError if it holds none of that name."""
        from safetensors import safe_open

        if name not in self._files:
            raise ModelFileError(f"{self._folder} holds no {name}; give a whole 16-bit model.")
        with safe_open(self._files[name], "pt") as file:
            found: torch.Tensor = file.get_tensor(name)
            return found


def open_weights(checkpoint: Checkpoint) -> GgufWeights | FolderWeights:
    """Return its linear modules, each read from the disk when it is asked for."""
    info = checkpoint.info
    return FolderWeights(checkpoint) if info is None else GgufWeights(info)


def _find_tensors(folder: Path) -> dict[str, Path]:
    """Return which file of a folder holds each tensor."""
    from safetensors import SafetensorError, safe_open

    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                found.update(dict.fromkeys(file.keys(), path))
        except (SafetensorError, OSError) as error:
            raise ModelFileError(f"{path} cannot be read: {error}; fetch it again.") from error
    return found


def write_variant(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    codec: Codec,
    keep: Collection[str] = (),
) -> Path:
    """Write the F16 copy of a GGUF, its linear modules decoded from a codec; return its path.

    keep: modules that stay as they are, as the head always does. F16 holds what nf4 decodes to
    within 2^-11 of each number. Raise what `requantize` raises, and FileError on a full disk.
    """
    weights = GgufWeights(inspect(Path(source)))
    plain = requantize(source, "F16")
    tensors = {tensor.name: tensor for tensor in inspect(plain).tensors}
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
    """Quantise a GGUF with llama-quantize, some tensors to types of their own; return its path.

    tensor_types: flags such as `skip_list.tensor_types` makes. Raise SettingError for an unknown
    quant, ToolchainError with llama-quantize's own words if it fails.
    """
    with files.replacing(Path(target)) as part:
        args = ["--allow-requantize", *tensor_types, source, part, check_quant(quant)]
        run_quantize(args, Path(target))
    return Path(target)
