"""The weights of linear modules: in memory, or read one by one from a GGUF or from safetensors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from .. import ggml, gguf_file
from ..errors import ModelFileError
from .checkpoint import Checkpoint, list_linears
from .linears import HEAD, KINDS, Linear, from_gguf


class Weights(Protocol):
    """Where the weights of linear modules come from."""

    @property
    def linears(self) -> Sequence[Linear]: ...

    def read(self, linear: Linear) -> torch.Tensor:
        """The weight of one of them, n_out x n_in, floats."""


def open_weights(checkpoint: Checkpoint) -> Weights:
    """Its linear modules, each read from the disk when it is asked for."""
    info = checkpoint.info
    return FolderWeights(checkpoint) if info is None else GgufWeights(info)


class LoadedWeights:
    """The linear modules of a model in memory."""

    def __init__(self, model: Any) -> None:
        self.linears = list_linears(model)
        self._model = model

    def read(self, linear: Linear) -> torch.Tensor:
        """Its weight, n_out x n_in; the model's own, not a copy."""
        weight: torch.Tensor = self._model.get_submodule(linear.name).weight
        return weight.detach()


class GgufWeights:
    """The linear modules of a GGUF, each dequantised when it is read.

    llama.cpp stores the rows of some models' q_proj and k_proj in another order than
    transformers; an error of a whole module does not depend on it.
    """

    def __init__(self, info: gguf_file.GGUFInfo) -> None:
        self._info = info
        self._tensors = {
            name: tensor
            for tensor in info.tensors
            if (name := from_gguf(tensor.name)) and len(tensor.shape) == 2
        }
        if HEAD not in self._tensors:  # the head shares the embedding
            shared = [tensor for tensor in info.tensors if tensor.name == "token_embd.weight"]
            if shared:
                self._tensors[HEAD] = shared[0]
        found = [
            Linear(name, tensor.shape[1], tensor.shape[0]) for name, tensor in self._tensors.items()
        ]
        # A file may hold layer 10 before layer 2; the model's own order is that of its layers.
        self.linears = tuple(sorted(found, key=_place))
        if not self.linears:
            raise ModelFileError(f"{info.path} holds no linear module that the lab knows.")

    def read(self, linear: Linear) -> torch.Tensor:
        """Its weight, n_out x n_in, float32."""
        tensor = self._tensors[linear.name]
        packed = np.memmap(self._info.path, np.uint8, "r", tensor.offset, (tensor.n_bytes,))
        try:
            numbers = ggml.dequantize(packed.reshape(linear.n_out, -1), tensor.type)
        except (KeyError, NotImplementedError) as error:
            raise ModelFileError(
                f"{self._info.path}: {tensor.name} is in {tensor.type}, which gguf cannot read."
            ) from error
        return torch.from_numpy(np.array(numbers, np.float32, copy=None))


def _place(linear: Linear) -> tuple[float, int]:
    layer = float("inf") if linear.layer is None else float(linear.layer)
    return layer, KINDS.index(linear.kind) if linear.kind in KINDS else 0


class FolderWeights:
    """The linear modules of a folder of safetensors, each read when it is asked for.

    The bytes are mapped, not copied: they count as memory while the tensor is held, no longer.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._folder = checkpoint.folder
        self._files = _read_index(checkpoint.folder)
        self.model = checkpoint.skeleton()
        tied = getattr(self.model, "all_tied_weights_keys", None) or {}
        self.linears = list_linears(self.model)
        self._names = {
            linear.name: tied.get(f"{linear.name}.weight", f"{linear.name}.weight")
            for linear in self.linears
        }
        for name in self._names.values():
            if name not in self._files:
                raise ModelFileError(f"{self._folder} lacks {name}; give a whole 16-bit model.")

    def read(self, linear: Linear) -> torch.Tensor:
        """Its weight, n_out x n_in, in the file's own floats."""
        weight = self.tensor(self._names[linear.name])
        if tuple(weight.shape) != (linear.n_out, linear.n_in) or not weight.is_floating_point():
            raise ModelFileError(
                f"{self._folder}: {linear.name}.weight is {tuple(weight.shape)} of {weight.dtype}, "
                f"not {(linear.n_out, linear.n_in)} of floats; is it quantised already?"
            )
        return weight

    def tensor(self, name: str) -> torch.Tensor:
        """Any tensor of the folder; ModelFileError where there is none of that name."""
        from safetensors import SafetensorError, safe_open

        if name not in self._files:
            raise ModelFileError(f"{self._folder} lacks {name}; give a whole model.")
        path = self._folder / self._files[name]
        try:
            with safe_open(path, "pt") as file:
                found: torch.Tensor = file.get_tensor(name)
                return found
        except (SafetensorError, OSError) as error:
            raise ModelFileError(f"{path} cannot be read: {error}; fetch it again.") from error


def _read_index(folder: Path) -> dict[str, str]:
    """Which file of a folder holds each tensor."""
    from safetensors import SafetensorError, safe_open

    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        path = folder / "model.safetensors"
        if not path.is_file():
            raise ModelFileError(f"{folder} holds no safetensors; give a model's own folder.")
        try:
            with safe_open(path, "pt") as file:
                return dict.fromkeys(file.keys(), path.name)
        except (SafetensorError, OSError) as error:
            raise ModelFileError(f"{path} cannot be read: {error}; fetch it again.") from error
    try:
        files = json.loads(index.read_bytes())["weight_map"]
        plain = all(isinstance(file, str) and Path(file).name == file for file in files.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        plain = False
    if not plain:
        raise ModelFileError(f"{index} is not an index of files in its own folder.")
    if missing := sorted({file for file in files.values() if not (folder / file).is_file()}):
        raise ModelFileError(f"{folder} lacks {', '.join(missing)}; fetch it again.")
    return dict(files)
