"""Who trains: peft or unsloth on a model in 4 bits, in one process or several, in memory enough.

`accelerate launch` starts several processes of one run, each on its own card. A process that is
alone is number 0 of 1, and then nothing here waits for another.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from typing import Any

from packaging.version import Version

from .. import preflight
from ..errors import SettingError
from ..quant import (
    BnbCodec,
    Checkpoint,
    free_memory,
    import_bitsandbytes,
    ledger,
    load_in_4bit,
    making_a_model,
    read_shapes,
)
from .recipe import Recipe

ENGINES = ("auto", "peft", "unsloth")
UNSLOTH_ON_CPU = "2026.10.9"
"""Older ones raise if there is no accelerator."""


@dataclass(frozen=True)
class LoraEngine:
    """A name, and a function that loads a model with adapters on it, ready to be trained."""

    name: str
    load: Callable[[Checkpoint, Sequence[str], BnbCodec, Recipe], Any]


def find_engine(name: str = "auto") -> LoraEngine:
    """Return the engine of that name; "auto" is unsloth if it is installed and runs, else peft.

    Raise SettingError for an unknown name, or for unsloth where it can't run.
    """
    if name not in ENGINES:
        raise SettingError(f"engine={name!r} is not one of {', '.join(ENGINES)}")
    missing = why_no_unsloth()
    if name == "unsloth" and missing:
        raise SettingError(f"unsloth does not run here: {missing}")
    if name == "peft" or missing:
        return LoraEngine("peft", load_peft)
    return LoraEngine("unsloth", load_unsloth)


def why_no_unsloth() -> str:
    """Return why unsloth can't be used here, and the remedy; "" if it can."""
    import torch

    if find_spec("unsloth") is None:
        return "it is not installed; run `pip install -c constraints.txt -e .[unsloth]`"
    version = metadata.version("unsloth")
    if not torch.cuda.is_available() and Version(version) < Version(UNSLOTH_ON_CPU):
        return f"without a GPU it takes unsloth {UNSLOTH_ON_CPU}, and {version} is installed"
    return ""


def load_peft(checkpoint: Checkpoint, keep: Sequence[str], codec: BnbCodec, recipe: Recipe) -> Any:
    """Return the model in 4 bits with adapters, by transformers, bitsandbytes and peft."""
    import_bitsandbytes()
    import peft
    import torch

    model = load_in_4bit(checkpoint, keep, codec, choose_dtype())
    model.config.use_cache = False
    with making_a_model:
        torch.manual_seed(recipe.seed)  # the adapters begin at random
        adapted = peft.get_peft_model(model, peft.LoraConfig(**lora_options(recipe)))
    if recipe.checkpointing:
        adapted.enable_input_require_grads()
    return adapted.train()


def choose_dtype() -> str:
    """Return the floats to train with: bfloat16, or float16 on a card that lacks it, as Turing's.

    With float16 the trainer scales the loss, or small gradients would be zeros.
    """
    import torch

    lacks = torch.cuda.is_available() and not torch.cuda.is_bf16_supported(
        including_emulation=False
    )
    return "float16" if lacks else "bfloat16"


def lora_options(recipe: Recipe) -> dict[str, Any]:
    """Return what peft.LoraConfig is told."""
    return {
        "r": recipe.rank,
        "lora_alpha": recipe.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "task_type": "CAUSAL_LM",
        "target_modules": list(recipe.modules),
    }


def load_unsloth(
    checkpoint: Checkpoint, keep: Sequence[str], codec: BnbCodec, recipe: Recipe
) -> Any:
    """Return it by unsloth, which changes transformers, peft and trl as it is imported."""
    os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")  # it would tell the hub of each load
    # Before the libraries that it changes, where these are not imported yet.
    unsloth = importlib.import_module("unsloth").FastLanguageModel

    def load(dtype: Any, **options: Any) -> Any:  # unsloth chooses it by the card, as we do
        return unsloth.from_pretrained(
            model_name=str(checkpoint.folder),
            max_seq_length=recipe.max_tokens,
            load_in_4bit=True,
            local_files_only=True,
            **options,
        )[0]

    adapted = unsloth.get_peft_model(
        load_in_4bit(checkpoint, keep, codec, choose_dtype(), load),
        use_gradient_checkpointing="unsloth" if recipe.checkpointing else False,
        random_state=recipe.seed,
        **{name: value for name, value in lora_options(recipe).items() if name != "task_type"},
    )
    return adapted.train()


def check_memory(
    checkpoint: Checkpoint,
    keep: Sequence[str],
    codec: BnbCodec,
    recipe: Recipe,
    context: int,
    engine: str,
) -> None:
    """Raise SettingError, with the ledger's figures, if a run would not fit into memory.

    context: tokens of the longest example. engine: "peft" or "unsloth".
    """
    import torch

    if not torch.cuda.is_available():
        engine = "peft"  # which unsloth's CPU backend is, too
    shapes = read_shapes(checkpoint.folder / "config.json")
    kept = sum(linear.n_weights for linear in shapes.quantised if linear.name in set(keep))
    found = ledger(
        shapes, codec.quant_type, recipe.rank, recipe.batch, context, kept, engine,
        recipe.checkpointing,
    )  # fmt: skip
    need, has = found.total("training"), free_on_device()
    if need > has:
        weights = found.lines[0].gb
        raise SettingError(
            f"Fine-tuning {checkpoint.title} takes {need / 1e9:.1f} GB of memory, {weights:.1f} of "
            f"them for its weights, and {has / 1e9:.1f} GB are free on {name_device()}; take a "
            "smaller model, a smaller rank or batch, or shorter examples, or switch this check off "
            "(--memory-check off)."
        )


def free_on_device() -> int:
    """Return the bytes that are free where a model would be trained: on the GPU if there is one.

    What PyTorch keeps of the card and has no tensor in is free for the next model.
    """
    import torch

    if not torch.cuda.is_available():
        return free_memory()
    cached = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return int(torch.cuda.mem_get_info()[0]) + cached


def name_device() -> str:
    """Return the card's name, or the processor's."""
    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return preflight.name_processor()


def peak_on_device() -> int:
    """Return the most memory that PyTorch has taken on the GPU, in bytes; 0 without a GPU."""
    import torch

    return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else 0


def is_main() -> bool:
    """Return whether this is the process that writes files and prints."""
    return int(os.environ.get("RANK", "0")) == 0


def share_accumulation(accumulation: int) -> int:
    """Return the batches that each process runs in a step, so that a step stays what it is."""
    n_processes = int(os.environ.get("WORLD_SIZE", "1"))
    if accumulation % n_processes:
        raise SettingError(
            f"accumulation={accumulation} can't be shared by {n_processes} processes; take a "
            "number of processes that divides it"
        )
    return accumulation // n_processes


@contextmanager
def main_first() -> Iterator[None]:
    """Let the main process through the block before the others."""
    with _state().main_process_first():
        yield


def add_up(values: list[int]) -> list[int]:
    """Return the sums over all processes."""
    import torch
    from accelerate.utils import reduce

    mine = torch.tensor(values, device=_state().device)
    return [int(value) for value in reduce(mine, "sum").tolist()]


def _state() -> Any:
    import accelerate
    import torch

    return accelerate.PartialState(cpu=not torch.cuda.is_available())
