"""One fine-tuning run by TRL's trainer, on a model that an engine has made ready.

Kept in one folder as it goes: a line for each step, a checkpoint now and then, the adapter at the
end. Called again, a run that was stopped or killed goes on from its last checkpoint.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..errors import SettingError
from . import ranks
from .label_masks import IGNORED, Collator, Row
from .recipe import Recipe

N_CHECKPOINTS = 4  # in a run; one is kept
STEPS = "steps.jsonl"


@dataclass(frozen=True)
class Step:
    """One step of the optimiser: its mean loss, and the tokens that were learnt in it.

    seconds are of the step alone, without checkpoints. stops counts labels that are the end token.
    """

    step: int
    loss: float
    seconds: float
    tokens: int
    stops: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return asdict(self)


OnStep = Callable[[int, int, Step], None]
"""Called with the steps done, the steps in all, and the step."""


def train(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Row],
    collator: Collator,
    recipe: Recipe,
    end: int,
    folder: Path,
    on_step: OnStep | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> list[Step]:
    """Train a model that holds adapters; every step so far, those of an earlier call included.

    folder gets steps.jsonl and checkpoints. stop is asked after each step; then a checkpoint is
    written, and the steps so far are given back.
    """
    import datasets
    import peft
    import trl
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_TELEMETRY = True  # TRL would tell the hub of each trainer
    checkpoint = _last_checkpoint(folder)
    done = int(checkpoint.name.split("-")[1]) if checkpoint else 0
    steps = [step for step in read_steps(folder) if step.step <= done]
    if [step.step for step in steps] != list(range(1, done + 1)):
        raise SettingError(f"{folder / STEPS} lacks steps of its checkpoint; take another folder")
    if checkpoint and done >= recipe.steps:
        # Its adapter was not written, or is gone; the model that came in is an untrained one.
        peft.set_peft_model_state_dict(model, peft.load_peft_weights(str(checkpoint)))
        return steps
    counter = Counter(model, end)
    journal = _Journal(steps, counter, recipe.steps, folder, on_step, stop)
    trainer = trl.SFTTrainer(
        model=model,
        args=trl.SFTConfig(**trainer_options(recipe, folder)),
        train_dataset=datasets.Dataset.from_list(list(rows)),
        data_collator=collator,
        processing_class=tokenizer,
        callbacks=[journal.callback()],
    )
    trainer.remove_callback(_printer())
    # TRL makes the adapters of a 4-bit model bfloat16, and a resumed run has them in float32, as
    # peft loads them: another run. A step of 2e-4 is also too small for much of bfloat16's grid.
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        counter.close()
    return journal.steps


def trainer_options(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """What trl.SFTConfig is told."""
    import torch

    on_gpu = torch.cuda.is_available()
    return {
        "output_dir": str(folder / "checkpoints"),
        "per_device_train_batch_size": recipe.batch,
        "gradient_accumulation_steps": ranks.share_accumulation(recipe.accumulation),
        "max_steps": recipe.steps,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": recipe.warm_up,
        "optim": recipe.optimiser,
        "weight_decay": recipe.weight_decay,
        "max_length": recipe.max_tokens,
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "bf16": on_gpu,
        "use_cpu": not on_gpu,
        "gradient_checkpointing": recipe.checkpointing,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": max(1, recipe.steps // N_CHECKPOINTS),
        "save_total_limit": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "dataset_kwargs": {"skip_prepare_dataset": True},
    }


class Counter:
    """Counts what a model is trained to write, by the labels that it is called with."""

    def __init__(self, model: Any, end: int) -> None:
        self._end = end
        self.tokens = self.stops = 0
        self._hook = model.register_forward_pre_hook(self._count, with_kwargs=True)

    def close(self) -> None:
        """Count no more."""
        self._hook.remove()

    def _count(self, _model: Any, _args: Any, inputs: dict[str, Any]) -> None:
        if (labels := inputs.get("labels")) is not None:
            labels = labels[:, 1:]  # nothing predicts the first
            self.tokens += int((labels != IGNORED).sum())
            self.stops += int((labels == self._end).sum())


class _Journal:
    """Writes down each step, and asks whether to stop."""

    def __init__(
        self,
        steps: list[Step],
        counter: Counter,
        total: int,
        folder: Path,
        on_step: OnStep | None,
        stop: Callable[[], bool],
    ) -> None:
        self.steps, self._counter, self._total = steps, counter, total
        self._file, self._on_step, self._stop = folder / STEPS, on_step, stop
        self._started = self._seconds = 0.0
        self._counts = [0, 0]
        if ranks.is_main():
            staged = self._file.with_name(f".{self._file.name}")
            staged.write_text("".join(map(_line, steps)), encoding="utf-8")
            staged.replace(self._file)

    def callback(self) -> Any:
        """As transformers wants it."""
        from transformers import TrainerCallback

        journal = self

        class Callback(TrainerCallback):
            def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                journal._started = time.perf_counter()

            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                journal._seconds = time.perf_counter() - journal._started
                if journal._end_step():
                    control.should_training_stop = control.should_save = True

            def on_log(self, args: Any, state: Any, control: Any, **told: Any) -> None:
                if "loss" in told["logs"]:
                    journal._add(state.global_step, float(told["logs"]["loss"]))

        return Callback()

    def _end_step(self) -> bool:
        """Add up what the processes have learnt; whether one of them is to stop."""
        counter = self._counter
        *self._counts, stops = ranks.add_up([counter.tokens, counter.stops, self._stop()])
        counter.tokens = counter.stops = 0
        return bool(stops)

    def _add(self, step: int, loss: float) -> None:
        found = Step(step, loss, self._seconds, *self._counts)
        self.steps.append(found)
        if not ranks.is_main():
            return
        with self._file.open("a", encoding="utf-8") as file:
            file.write(_line(found))
        if self._on_step:
            self._on_step(step, self._total, found)


def read_steps(folder: Path) -> list[Step]:
    """The steps that a folder holds; a line that was cut short ends them."""
    path = folder / STEPS
    if not path.is_file():
        return []
    found = []
    names = {field.name for field in fields(Step)}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(row, dict) or set(row) != names:
            break
        found.append(Step(**row))
    return found


def _line(step: Step) -> str:
    return json.dumps(step.to_dict()) + "\n"


def _last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written whole."""
    found = [path.parent for path in folder.glob("checkpoints/checkpoint-*/trainer_state.json")]
    return max(found, key=lambda path: int(path.name.split("-")[1]), default=None)


def _printer() -> Any:
    from transformers import PrinterCallback

    return PrinterCallback
