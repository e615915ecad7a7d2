"""A trained adapter, back in llama.cpp: as a GGUF of its own, or merged into a model's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from . import gguf_file, llama_source, toolchain
from .checkpoint import Checkpoint
from .download import check_disk
from .errors import ModelFileError, ToolchainError
from .requantize import check_quant

SCRIPT = "convert_lora_to_gguf.py"
WEIGHTS = "adapter_model.safetensors"


def export_adapter(
    folder: str | os.PathLike[str], target: str | os.PathLike[str], base: str | Path | Checkpoint
) -> Path:
    """Write an adapter of peft's as a GGUF, float32, with llama.cpp's own script.

    folder: with adapter_config.json and adapter_model.safetensors; a .bin is a pickle, which could
    run anything, and is refused. base: the model that it was trained on; its configuration alone
    is read. ModelFileError for a folder that holds no adapter of that model, ToolchainError where
    the script is not here.
    """
    folder, target = Path(folder), Path(target)
    for name in ("adapter_config.json", WEIGHTS):
        if not (folder / name).is_file():
            raise ModelFileError(f"{folder} holds no {name}; give a folder that peft wrote.")
    source = llama_source.find_source()
    if source is None or not (source / SCRIPT).is_file():
        raise ToolchainError(f"llama.cpp's {SCRIPT} is not here: run `make setup`.")
    checkpoint = base if isinstance(base, Checkpoint) else Checkpoint(base)
    check_disk(target.absolute().parent, (folder / WEIGHTS).stat().st_size, target.name,
               "choose a folder on a larger disk")  # fmt: skip
    staged = target.with_name(f".{target.name}.{os.getpid()}")
    command = [sys.executable, SCRIPT, str(folder.resolve()), "--outtype", "f32",
               "--base", str(checkpoint.folder), "--outfile", str(staged.absolute())]  # fmt: skip
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    try:
        done = subprocess.run(
            command, cwd=source, env={**os.environ, **offline}, stdin=subprocess.DEVNULL,
            capture_output=True, check=False,
        )  # fmt: skip
        if done.returncode != 0 or not staged.is_file():
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
            reason = lines[-1][:200] if lines else "it said nothing"
            raise ModelFileError(
                f"{folder} is no adapter that {SCRIPT} can turn into a GGUF: {reason}"
            )
        staged.replace(target)
    finally:
        staged.unlink(missing_ok=True)
    return target


def merge_adapter(
    adapter: str | os.PathLike[str],
    model: str | os.PathLike[str],
    target: str | os.PathLike[str],
    quant: str | None = None,
) -> Path:
    """Add a GGUF adapter to a model's weights, by llama-export-lora: one file, F16 or a quant.

    Raises ToolchainError with the program's own words when it fails.
    """
    target = Path(target)
    quant = None if quant is None else check_quant(quant)
    n_parameters = gguf_file.inspect(Path(model)).n_parameters
    check_disk(target.absolute().parent, 3 * n_parameters, target.name,
               "choose a folder on a larger disk")  # fmt: skip
    staged = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        toolchain.run_tool("llama-export-lora", ["-m", model, "--lora", adapter, "-o", staged])
        if quant is not None:
            whole, staged_quant = staged, staged.with_name(f"{staged.name}.{quant}")
            try:
                toolchain.run_tool("llama-quantize", [whole, staged_quant, quant])
                staged_quant.replace(staged)
            finally:
                staged_quant.unlink(missing_ok=True)
        staged.replace(target)
    finally:
        staged.unlink(missing_ok=True)
    return target
