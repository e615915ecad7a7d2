"""Fine-tune a model in 4 bits by the article's recipe, with unsloth or without, and keep it all.

Both engines give TRL's trainer the same numbers and give back the same kind of result. A run is
kept in one folder as it goes: what it is, a line for each step, a checkpoint now and then, the
adapter at the end. Called again, a run that was stopped or killed goes on from its last
checkpoint.
"""

from __future__ import annotations

import gc
import hashlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .. import files
from ..errors import BusyError, ChatError, SettingError
from ..models import Conversation, read_specials, read_template
from ..quant import BnbCodec, Checkpoint, find_codec, peak_memory, read_kept
from . import engines
from .examples import Example, Turn, render_turns
from .labels import IGNORED, Collator, Row, encode, find_token, make_collator
from .recipe import Recipe

PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes", "unsloth")
RUN, STEPS, ADAPTER = "run.json", "steps.jsonl", "adapter"
N_CHECKPOINTS = 4  # in a run; one is kept
_training = threading.Lock()


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


OnStep = Callable[[int, int, Step], None]
"""Called with the steps done, the steps in all, and the step."""


@dataclass(frozen=True)
class FineTuned:
    """What came of a run.

    engine: "peft" or "unsloth"; device: the processor's or the card's name. whole is False if it
    was stopped: called again, it goes on. peak_memory_bytes: the process's most, or on a GPU what
    PyTorch took there. adapter: a folder in peft's form, None until it is whole.
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
        """Return JSON-ready values.

        trained_tokens and stop_labels_kept count labels that were learnt, and those of them that
        are the end token.
        """
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
    examples: Sequence[Example | Conversation],
    folder: str | Path,
    recipe: Recipe | None = None,
    engine: str = "auto",
    pad: str | None = None,
    collator: str = "trl",
    keep: Sequence[str] = (),
    codec: str = "nf4-dq",
    on_step: OnStep | None = None,
    stop: Callable[[], bool] = lambda: False,
    memory_check: bool = True,
) -> FineTuned:
    """Train LoRA adapters on a model in 4 bits.

    examples: each becomes a prompt in Alpaca's form, its output and the model's end token; only
    the output and the end are learnt. Of a chat each answer becomes one, behind a prompt by the
    model's own template (see `render_turns`).
    folder:   gets run.json, steps.jsonl, checkpoints and adapter/. If it holds this very run, the
              run goes on; if it holds another, SettingError is raised.
    pad:      a token by its text, by default the model's own; see `labels` for what it does with
              which collator.
    keep:     linear modules that stay in 16 bits (see `quant.select`).
    codec:    nf4-dq, nf4, fp4-dq or fp4. A folder that is in bitsandbytes' 4 bits already is taken
              as it is, with the modules that it keeps.
    stop:     asked after each step; then a checkpoint is written.
    memory_check: refuse a run that takes more memory, by the ledger, than is free.

    Raise SettingError for values that make no sense or too little memory, ModelFileError or
    FetchError for a model that can't be used, BusyError if this process trains already: two runs
    would draw from one source of random numbers.
    """
    import torch

    folder, recipe = Path(folder), recipe or Recipe()
    checkpoint = model if isinstance(model, Checkpoint) else Checkpoint(model)
    if not examples:
        raise SettingError("there are no examples to train on")
    if checkpoint.quantisation:
        if keep:
            raise SettingError(f"{checkpoint.path} is in 4 bits already: leave `keep` out")
        keep = read_kept(checkpoint)
    chosen = find_codec(codec)
    if not isinstance(chosen, BnbCodec):
        raise SettingError(f"{codec!r} is no type of bitsandbytes; train on nf4 or fp4")
    start = engines.find_engine(engine)
    with engines.main_first():  # it may unpack the model
        tokenizer = checkpoint.tokenizer()
    if tokenizer.eos_token_id is None:
        raise SettingError(f"{checkpoint.title} names no end token, so none could be learnt")
    end = int(tokenizer.eos_token_id)
    pad = pad if pad is not None else tokenizer.pad_token or tokenizer.eos_token
    collate = make_collator(collator, tokenizer, find_token(tokenizer, pad))
    texts = json.dumps([asdict(example) for example in examples])
    plan = {
        "model": checkpoint.identify(),
        "examples": hashlib.sha256(texts.encode()).hexdigest(),
        "engine": start.name,
        "pad": pad,
        "collator": collator,
        "keep": sorted(keep),
        "codec": chosen.name,
        **recipe.to_dict(),
    }
    answers = _list_answers(examples, checkpoint)
    rows = [encode(each, tokenizer, end, recipe.max_tokens) for _, each in answers]
    for (number, _), row in zip(answers, rows, strict=True):
        if all(target == IGNORED for target in row["labels"][1:]):
            raise SettingError(
                f"example {number}: its prompt takes all of max_tokens={recipe.max_tokens}, and "
                "nothing of its answer would be learnt; leave it out, or raise max_tokens"
            )
    longest = max(len(row["input_ids"]) for row in rows)
    gc.collect()  # a trainer and its model hold each other: an earlier run's may still be there
    if memory_check:
        engines.check_memory(checkpoint, keep, chosen, recipe, longest, start.name)
    adapter = folder / ADAPTER
    overflow = False
    if not _training.acquire(blocking=False):
        raise BusyError("a model is being trained here; wait for it, or press its Stop")
    try:
        with engines.main_first():
            _claim(folder, plan)
        steps = read_steps(folder)
        if not (adapter / "adapter_config.json").is_file():
            ready = start.load(checkpoint, keep, chosen, recipe)
            steps = _train(ready, tokenizer, rows, collate, recipe, end, folder, on_step, stop)
            with engines.main_first():
                if steps[-1].step == recipe.steps and engines.is_main():
                    staged = adapter.with_name(f".{adapter.name}")
                    ready.save_pretrained(staged)
                    staged.replace(adapter)  # whole or not at all
    except torch.OutOfMemoryError:
        overflow = True
    finally:
        _training.release()
    if overflow:  # raised out here, where no traceback holds the model in that memory
        raise SettingError(
            f"{engines.name_device()} ran out of memory while {checkpoint.title} was trained; take "
            "a smaller rank or batch, or shorter examples (--max-tokens), in a new folder"
        )
    whole = (adapter / "adapter_config.json").is_file()
    return FineTuned(
        engine=start.name,
        model=checkpoint.title,
        device=engines.name_device(),
        recipe=recipe,
        pad=pad,
        collator=collator,
        kept=tuple(keep),
        steps=tuple(steps),
        peak_memory_bytes=engines.peak_on_device() or peak_memory(),
        adapter=str(adapter) if whole else None,
        versions={name: metadata.version(name) for name in PACKAGES if find_spec(name)},
    )


def _list_answers(
    examples: Sequence[Example | Conversation], checkpoint: Checkpoint
) -> list[tuple[int, Example | Turn]]:
    """Return all that is to be answered, each with the number of its example."""
    chats = [each for each in examples if isinstance(each, Conversation)]
    turns = iter(_render(chats, checkpoint) if chats else [])
    return [
        (number, part)
        for number, each in enumerate(examples, 1)
        for part in (next(turns) if isinstance(each, Conversation) else [each])
    ]


def _render(chats: Sequence[Conversation], checkpoint: Checkpoint) -> list[list[Turn]]:
    source = checkpoint.path
    try:
        template = read_template(source)
    except ChatError:
        raise SettingError(
            f"{checkpoint.title} has no chat template; give it examples with instruction, input "
            "and output"
        ) from None
    return render_turns(chats, template, read_specials(source))


def _claim(folder: Path, plan: dict[str, Any]) -> None:
    """Write down what is run in a folder; raise SettingError if another run is there."""
    path = folder / RUN
    if folder.is_file():
        raise SettingError(f"{folder} is a file; name a folder, a new one or an earlier run's")
    if path.is_file():
        there = files.read_json(path)
        names = [name for name in plan if there.get(name) != plan[name]]
        if names:
            raise SettingError(
                f"{folder} holds a run with other {', '.join(names)}; choose another folder"
            )
        return
    with files.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise SettingError(f"{folder} is not empty and holds no run; choose another folder")
    files.write_text(path, json.dumps(plan, indent=1))


def _train(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Row],
    collator: Collator,
    recipe: Recipe,
    end: int,
    folder: Path,
    on_step: OnStep | None,
    stop: Callable[[], bool],
) -> list[Step]:
    """Train a model that holds adapters; return every step so far, of earlier calls too."""
    import datasets
    import peft
    import transformers
    import trl
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_TELEMETRY = True  # TRL would tell the hub of each trainer
    checkpoint = _last_checkpoint(folder)
    done = int(checkpoint.name.split("-")[1]) if checkpoint else 0
    steps = [step for step in read_steps(folder) if step.step <= done]
    if checkpoint and done >= recipe.steps:
        # Its adapter was not written, or is gone; the model that came in is an untrained one.
        peft.set_peft_model_state_dict(model, peft.load_peft_weights(str(checkpoint)))
        return steps
    recorder = _make_recorder(model, end, steps, recipe.steps, folder, on_step, stop)
    trainer = trl.SFTTrainer(
        model=model,
        args=trl.SFTConfig(**trainer_options(recipe, folder)),
        train_dataset=datasets.Dataset.from_list(list(rows)),
        data_collator=collator,
        processing_class=tokenizer,
        callbacks=[recorder],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    # TRL makes the adapters of a 4-bit model bfloat16, and a resumed run has them in float32, as
    # peft loads them: another run. A step of 2e-4 is also too small for much of bfloat16's grid.
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return steps


def trainer_options(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Return what trl.SFTConfig is told."""
    import torch

    on_gpu = torch.cuda.is_available()
    dtype = engines.choose_dtype() if on_gpu else ""  # on a CPU nothing is cast
    return {
        "output_dir": str(folder / "checkpoints"),
        "per_device_train_batch_size": recipe.batch,
        "gradient_accumulation_steps": engines.share_accumulation(recipe.accumulation),
        "max_steps": recipe.steps,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": recipe.warm_up,
        "optim": recipe.optimiser,
        "weight_decay": recipe.weight_decay,
        "max_length": recipe.max_tokens,
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "bf16": dtype == "bfloat16",
        "fp16": dtype == "float16",
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


def read_steps(folder: Path) -> list[Step]:
    """Return the steps that a folder holds, up to a line that was cut short."""
    path = folder / STEPS
    found: list[Step] = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                found.append(Step(**json.loads(line)))
            except (ValueError, TypeError):
                break
    return found


def _last_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint that was written whole."""
    found = [path.parent for path in folder.glob("checkpoints/checkpoint-*/trainer_state.json")]
    return max(found, key=lambda path: int(path.name.split("-")[1]), default=None)


def _make_recorder(
    model: Any,
    end: int,
    steps: list[Step],
    total: int,
    folder: Path,
    on_step: OnStep | None,
    stop: Callable[[], bool],
) -> Any:
    """Return a callback that writes down each step, in `steps` and in the folder, and may stop.

    What is learnt is counted by the labels that the model is called with.
    """
    from transformers import TrainerCallback

    file = folder / STEPS
    if engines.is_main():
        files.write_text(file, "".join(map(_line, steps)))

    class Recorder(TrainerCallback):
        started = seconds = 0.0
        tokens = stops = 0

        def count(self, _model: Any, _args: Any, inputs: dict[str, Any]) -> None:
            labels = inputs["labels"][:, 1:]  # nothing predicts the first
            self.tokens += int((labels != IGNORED).sum())
            self.stops += int((labels == end).sum())

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.hook = model.register_forward_pre_hook(self.count, with_kwargs=True)

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.hook.remove()

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.started = time.perf_counter()
            self.tokens = self.stops = 0

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.seconds = time.perf_counter() - self.started
            counts = engines.add_up([self.tokens, self.stops, stop()])
            self.tokens, self.stops, stops = counts
            if stops:  # one of the processes is to stop
                control.should_training_stop = control.should_save = True

        def on_log(self, args: Any, state: Any, control: Any, **told: Any) -> None:
            if "loss" not in told["logs"]:
                return
            loss = float(told["logs"]["loss"])
            step = Step(state.global_step, loss, self.seconds, self.tokens, self.stops)
            steps.append(step)
            if engines.is_main():
                with file.open("a", encoding="utf-8") as out:
                    out.write(_line(step))
                if on_step:
                    on_step(step.step, total, step)

    return Recorder()


def _line(step: Step) -> str:
    return json.dumps(asdict(step)) + "\n"
