"""An adapter of LoRA's, added to a model's weights."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from .. import files
from ..llamacpp import run_tool
from .gguf import inspect
from .quants import check_quant, run_quantize


def merge_adapter(
    adapter: str | os.PathLike[str],
    model: str | os.PathLike[str],
    target: str | os.PathLike[str],
    quant: str = "F16",
) -> Path:
    """Add a GGUF adapter to a model's weights, as one file in F16 or a quant; return its path.

    llama-export-lora does it. Raise ToolchainError with the program's own words if it fails.
    """
    target, quant = Path(target), check_quant(quant)
    n_parameters = inspect(Path(model)).n_parameters
    files.check_disk(target.absolute().parent, 3 * n_parameters, target.name,
               "choose a folder on a larger disk")  # fmt: skip
    with files.replacing(target) as part, tempfile.TemporaryDirectory(dir=part.parent) as folder:
        whole = part if quant == "F16" else Path(folder) / "F16.gguf"
        run_tool("llama-export-lora", ["-m", model, "--lora", adapter, "-o", whole])
        if whole != part:
            run_quantize([whole, part, quant], target)
    return target
