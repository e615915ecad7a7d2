"""Fine-tune a model in 4 bits by the article's recipe, with unsloth or without, and keep it all.

Both engines give TRL's trainer the same numbers and give back the same kind of result.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import files, hashes
from ..errors import BusyError, SettingError
from ..quant import four_bit
from ..quant.checkpoint import Checkpoint
from ..quant.codecs import BnbCodec, find_codec
from ..quant.quantize import peak_memory
from . import lora_engines, ranks
from .examples import Example
from .label_masks import IGNORED, encode, find_token, make_collator
from .recipe import Recipe
from .training import OnStep, Step, read_steps, train

PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes", "unsloth")
RUN, ADAPTER = "run.json", "adapter"
_training = threading.Lock()


@dataclass(frozen=True)
class FineTuned:
    """What came of a run.

    engine: "peft" or "unsloth"; device: the processor's or the card's name. whole is False where
    it was stopped: called again, it goes on. peak_memory_bytes: the process's most, or on a GPU
    what PyTorch took there. trained_tokens and stop_labels_kept count labels that were learnt, and
    those of them that are the end token. adapter: a folder in peft's form, None until it is whole.
    """

    engine: str
    model: str
    device: str
    recipe: Recipe
    pad: str
    collator: str
    kept: tuple[str, ...]
    steps: tuple[Step, ...]
    peak_memory_bytes: int
    adapter: str | None
    versions: dict[str, str]

    @property
    def whole(self) -> bool:
        return self.adapter is not None

    @property
    def losses(self) -> list[float]:
        return [step.loss for step in self.steps]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return {
            **asdict(self),
            "recipe": self.recipe.to_dict(),
            "whole": self.whole,
            "losses": self.losses,
            "step_seconds": [step.seconds for step in self.steps],
            "trained_tokens": sum(step.tokens for step in self.steps),
            "stop_labels_kept": sum(step.stops for step in self.steps),
        }


def finetune(
    model: str | Path | Checkpoint,
    examples: Sequence[Example],
    folder: str | Path,
    recipe: Recipe | None = None,
    engine: str = "auto",
    pad: str | None = None,
    collator: str = "trl",
    keep: Sequence[str] = (),
    codec: str = "nf4-dq",
    on_step: OnStep | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> FineTuned:
    """Train LoRA adapters on a model in 4 bits.

    examples: each becomes a prompt in Alpaca's form, its output and the model's end token; only
    the output and the end are learnt.
    folder:   gets run.json, steps.jsonl, checkpoints and adapter/. One that holds this very run
              goes on where it was; one that holds another is refused.
    pad:      a token by its text, by default the model's own; see `label_masks` for what it does
              with which collator.
    keep:     linear modules that stay in 16 bits (see `select_modules`).
    codec:    nf4-dq, nf4, fp4-dq or fp4. A folder that is in bitsandbytes' 4 bits already is taken
              as it is, with the modules that it keeps.

    SettingError for values that make no sense or memory that is too short, ModelFileError and
    FetchError for a model that can't be used, BusyError where this process trains already: two
    runs would draw from one source of random numbers.
    """
    if not _training.acquire(blocking=False):
        raise BusyError("a model is being trained here; wait for it, or press its Stop")
    try:
        return _finetune(
            model, examples, Path(folder), recipe or Recipe(), engine, pad, collator, keep, codec,
            on_step, stop,
        )  # fmt: skip
    finally:
        _training.release()


def _finetune(
    model: str | Path | Checkpoint,
    examples: Sequence[Example],
    folder: Path,
    recipe: Recipe,
    engine: str,
    pad: str | None,
    collator: str,
    keep: Sequence[str],
    codec: str,
    on_step: OnStep | None,
    stop: Callable[[], bool],
) -> FineTuned:
    checkpoint = model if isinstance(model, Checkpoint) else Checkpoint(model)
    if not examples:
        raise SettingError("there are no examples to train on")
    if checkpoint.quantisation:
        if keep:
            raise SettingError(f"{checkpoint.path} is in 4 bits already: leave `keep` out")
        keep = four_bit.read_kept(checkpoint)
    chosen = find_codec(codec)
    if not isinstance(chosen, BnbCodec):
        raise SettingError(f"{codec!r} is no type of bitsandbytes; train on nf4 or fp4")
    start = lora_engines.find_engine(engine)
    with ranks.main_first():  # it may unpack the model
        tokenizer = checkpoint.tokenizer()
    if tokenizer.eos_token_id is None:
        raise SettingError(f"{checkpoint.title} names no end token, so none could be learnt")
    end = int(tokenizer.eos_token_id)
    pad = pad if pad is not None else tokenizer.pad_token or tokenizer.eos_token
    collate = make_collator(collator, tokenizer, find_token(tokenizer, pad))
    texts = json.dumps([example.to_dict() for example in examples])
    plan = {
        "model": checkpoint.identify(),
        "examples": hashlib.sha256(texts.encode()).hexdigest(),
        "recipe": recipe.to_dict(),
        "engine": start.name,
        "pad": pad,
        "collator": collator,
        "keep": sorted(keep),
        "codec": chosen.name,
    }
    rows = [encode(each, tokenizer, end, recipe.max_tokens) for each in examples]
    for number, row in enumerate(rows, 1):
        if all(target == IGNORED for target in row["labels"][1:]):
            raise SettingError(
                f"example {number}: its prompt takes all of max_tokens={recipe.max_tokens}, and "
                "nothing of its answer would be learnt; leave it out, or raise max_tokens"
            )
    longest = max(len(row["input_ids"]) for row in rows)
    lora_engines.check_memory(checkpoint, keep, chosen, recipe, longest)
    with ranks.main_first():
        _claim(folder, plan)
    adapter = folder / ADAPTER
    steps = read_steps(folder)
    if not (adapter / "adapter_config.json").is_file():
        ready = start.load(checkpoint, keep, chosen, recipe)
        steps = train(ready, tokenizer, rows, collate, recipe, end, folder, on_step, stop)
        with ranks.main_first():
            if len(steps) == recipe.steps and ranks.is_main():
                _save(ready, adapter)
    whole = (adapter / "adapter_config.json").is_file()
    return FineTuned(
        engine=start.name,
        model=checkpoint.title,
        device=lora_engines.name_device(),
        recipe=recipe,
        pad=pad,
        collator=collator,
        kept=tuple(keep),
        steps=tuple(steps),
        peak_memory_bytes=lora_engines.peak_on_device() or peak_memory(),
        adapter=str(adapter) if whole else None,
        versions=_versions(),
    )


def _claim(folder: Path, plan: dict[str, Any]) -> None:
    """Write down what is run in a folder; SettingError where another run is there."""
    path = folder / RUN
    if path.is_file():
        there = hashes.read_json(path)
        if there != plan:
            names = [name for name in plan if there.get(name) != plan[name]]
            own, other = plan["recipe"], there.get("recipe")
            if isinstance(other, dict) and "recipe" in names:
                names += [name for name in own if other.get(name) != own[name]]
                names.remove("recipe")
            raise SettingError(
                f"{folder} holds a run with other {', '.join(names)}; choose another folder"
            )
        return
    with files.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise SettingError(f"{folder} is not empty and holds no run; choose another folder")
    files.write_text(path, json.dumps(plan, indent=1))


def _save(model: Any, adapter: Path) -> None:
    """The adapter as peft writes it, whole or not at all."""
    staged = adapter.with_name(f".{adapter.name}")
    model.save_pretrained(staged)
    staged.replace(adapter)


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
