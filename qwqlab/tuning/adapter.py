"""A trained adapter, back in llama.cpp: as a GGUF of its own, or merged into a model's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import gguf_file, llama_source, toolchain
from ..download import check_disk
from ..engine import Engine
from ..errors import ModelFileError, ToolchainError
from ..loading import Loading
from ..native import Matrix
from ..quant.checkpoint import Checkpoint, making_a_model
from ..records import Request
from ..requantize import check_quant, requantize
from ..sampling import Sampling

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
               "--base", str(checkpoint.folder.resolve()),
               "--outfile", str(staged.absolute())]  # fmt: skip
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


@dataclass(frozen=True)
class Agreement:
    """Logits after a text, the largest difference of any token.

    difference: between llama.cpp with the adapter and peft. effect: between peft with the adapter
    and without it.
    """

    difference: float
    effect: float


def compare_with_peft(
    folder: str | os.PathLike[str], gguf: str | Path, checkpoint: Checkpoint, texts: Sequence[str]
) -> list[Agreement]:
    """Whether an exported adapter does in llama.cpp what it does in peft, for each text.

    folder: the adapter as peft wrote it; gguf: the same, exported; checkpoint: a GGUF, of which a
    copy in float32 is made. Weights, cache and products are float32 on both sides, so what is left
    is the order of the sums.
    """
    import peft
    import torch

    base = checkpoint.load()
    with making_a_model:
        model = peft.PeftModel.from_pretrained(base, os.fspath(folder)).eval()
    exact = Loading(
        n_ctx=1024, flash_attn="off", cache_type_k="f32", cache_type_v="f32", lora=(str(gguf),)
    )
    found = []
    with Engine(requantize(checkpoint.path, "F32"), exact) as engine, torch.inference_mode():
        for text in texts:
            ids = torch.tensor([checkpoint.tokenize(text)])
            ours = model(ids).logits[0, -1].numpy()
            with model.disable_adapter():
                bare = model(ids).logits[0, -1].numpy()
            kept: dict[int, Matrix] = {}
            list(engine.run([Request(text, Sampling(temp=0.0), 1, 1)], keep_logits=kept))
            found.append(
                Agreement(float(np.abs(ours - kept[0][0]).max()), float(np.abs(ours - bare).max()))
            )
    return found


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
