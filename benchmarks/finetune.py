"""Fine-tuning: the lab's engine against a bare loop of TRL's, and unsloth against Hugging Face.

`python benchmarks/finetune.py` prints, with the name of what it ran on:

- the step time of the peft engine over that of a bare `trl.SFTTrainer` with the same model, the
  same settings and nothing else, step by step in turn: the median over steps that learn from the
  same examples. The engine keeps adapters in float32, so that a run that goes on is the same run;
  the bare loop is timed so, and with TRL's own bfloat16;
- the article's table: unsloth against peft with the same recipe, step time and peak memory, and on
  a GPU the longest example that fits. Its claims stand beside what was measured.

`--model` takes a folder or a name; `--engines peft,unsloth` says which are compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
import trl

from qwqlab.errors import SettingError
from qwqlab.paths import data_dir
from qwqlab.quant import BnbCodec, Checkpoint
from qwqlab.tuning import (
    Example,
    Recipe,
    encode,
    finetune,
    load_peft,
    make_collator,
    name_device,
    read_examples,
    why_no_unsloth,
)
from qwqlab.tuning.training import trainer_options

EXAMPLES = read_examples(data_dir() / "shopping" / "train.jsonl")
RECIPE = Recipe(steps=6)
SHORT = Recipe(steps=25, accumulation=1)  # more steps, and nothing of the lab's is hidden in them
ROUNDS = 3
FIRST = 512  # tokens of the shortest example that is tried for length; then doubled
CLAIMS = {"step time": "2 times", "peak memory": "70 % less", "longest example": "13 times"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--engines", default="peft" if why_no_unsloth() else "peft,unsloth")
    parser.add_argument("--table", action="store_true", help="the article's alone, as JSON")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        print(json.dumps(WORKS[args.work.split(":")[0]](args.model, args.work)))
        return
    if args.table:
        engines = args.engines.split(",")
        print(json.dumps(make_table({each: measure_engine(args.model, each) for each in engines})))
        return
    print(f"on {name_device()}, {args.model}")
    for dtype in ("float32", "bfloat16"):
        ratio = compare_loops(args.model, dtype)
        print(f"the peft engine takes {ratio:.3f} times a bare TRL loop with adapters in {dtype}")
    engines = args.engines.split(",")
    if reason := why_no_unsloth():
        print(f"unsloth is not compared: {reason}")
    results = {engine: measure_engine(args.model, engine) for engine in engines}
    for engine, found in results.items():
        print(f"{engine}: " + ", ".join(f"{name} {value}" for name, value in found.items()))
    for row in make_table(results):
        if row["ratio"]:
            print(
                f"{row['what']}: unsloth has {row['ratio']:.2f} times peft's; "
                f"Unsloth claims {row['Unsloth claims']}"
            )


def make_table(results: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """The article's table: a row for each of its claims, with what was measured beside it."""
    rows = []
    for name, claim in CLAIMS.items():
        own, other = (results.get(engine, {}).get(name) for engine in ("unsloth", "peft"))
        ratio = round(own / other, 3) if own and other else None
        rows.append(
            {"what": name, "unsloth": own, "peft": other, "ratio": ratio, "Unsloth claims": claim}
        )
    return rows


def compare_loops(model: str, dtype: str) -> float:
    """The median over steps of the engine's step time over the bare loop's, run by run."""
    medians = []
    for _ in range(ROUNDS):
        found = run_apart(model, f"loops:{dtype}")
        if not found:
            continue
        ratios = [own / other for own, other in zip(found["engine"], found["bare"], strict=True)]
        medians.append(statistics.median(ratios[1:]))
        print(f"  {medians[-1]:.3f} over {len(ratios) - 1} steps")
    return statistics.median(medians) if medians else float("nan")


def measure_engine(model: str, engine: str) -> dict[str, float]:
    """Step time in seconds, peak memory in GB, and where there is a GPU the longest example."""
    run = run_apart(model, f"steps:{engine}")
    if not run:
        return {}
    found = {"step time": statistics.median(run["seconds"][1:]), "peak memory": run["peak"] / 1e9}
    if torch.cuda.is_available():
        length, longest = FIRST, 0
        while run_apart(model, f"length:{engine}:{length}").get("fits"):
            longest, length = length, 2 * length
        found["longest example"] = longest
    return found


def run_apart(model: str, work: str) -> dict[str, Any]:
    """Work in a process of its own, which gives back JSON; empty if it died."""
    command = [sys.executable, __file__, "--model", model, "--work", work]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
        print(f"  {work}: {said[-1][:200]}")
        return {}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def time_engine(model: str, work: str) -> dict[str, Any]:
    """The lab's own function."""
    with tempfile.TemporaryDirectory() as folder:
        found = finetune(model, EXAMPLES, Path(folder) / "run", RECIPE, work.split(":")[1])
    return {"seconds": [step.seconds for step in found.steps], "peak": found.peak_memory_bytes}


class Turns:
    """Lets two threads take steps in turn, so that both meet the machine's moods alike."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._turn, self._ended = 0, False

    def wait(self, me: int) -> None:
        with self._condition:
            self._condition.wait_for(lambda: self._turn == me or self._ended)

    def give(self, me: int) -> bool:
        """Let the other one step, then go on; False, as an answer to "stop?"."""
        with self._condition:
            self._turn = 1 - me
            self._condition.notify_all()
        self.wait(me)
        return False

    def end(self) -> None:
        with self._condition:
            self._ended = True
            self._condition.notify_all()


def time_loops(model: str, work: str) -> dict[str, Any]:
    """The engine and TRL's trainer alone, the same steps in turn, in one process."""
    turns = Turns()
    bare: list[float] = []

    def run_bare() -> None:
        try:
            bare.extend(time_bare(model, turns, work.split(":")[1]))
        finally:
            turns.end()

    other = threading.Thread(target=run_bare)
    other.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "run"
            own = finetune(model, EXAMPLES, target, SHORT, "peft", stop=lambda: turns.give(0))
    finally:
        turns.end()
    other.join()
    return {"engine": [step.seconds for step in own.steps], "bare": bare}


def time_bare(model: str, turns: Turns, dtype: str) -> list[float]:
    """TRL's trainer on the same model, told the same; a callback that notes the time."""
    checkpoint = Checkpoint(model)
    tokenizer = checkpoint.tokenizer()
    end = int(tokenizer.eos_token_id)
    rows = [encode(each, tokenizer, end, SHORT.max_tokens) for each in EXAMPLES]
    seconds: list[float] = []

    class Clock(transformers.TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            turns.wait(1)

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            seconds.append(-time.perf_counter())

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            seconds[-1] += time.perf_counter()
            turns.give(1)

    with tempfile.TemporaryDirectory() as folder:
        trainer = trl.SFTTrainer(
            model=load_peft(checkpoint, (), BnbCodec(double=True), SHORT),
            args=trl.SFTConfig(**trainer_options(SHORT, Path(folder))),
            train_dataset=datasets.Dataset.from_list(list(rows)),
            data_collator=make_collator("trl", tokenizer, int(tokenizer.pad_token_id)),
            processing_class=tokenizer,
            callbacks=[Clock()],
        )
        model_there: Any = trainer.model
        for parameter in model_there.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(getattr(torch, dtype))
        trainer.train()
    return seconds


def try_length(model: str, work: str) -> dict[str, Any]:
    """One step of the recipe on examples of so many tokens."""
    _, engine, length = work.split(":")
    n_tokens = int(length)
    text = " ".join(["one apple, two pears and"] * n_tokens)
    examples = [Example("Count.", f"{number}", text) for number in range(8)]
    with tempfile.TemporaryDirectory() as folder:
        recipe = Recipe(steps=1, max_tokens=n_tokens)
        try:  # the card itself is asked, not the ledger
            finetune(model, examples, Path(folder) / "run", recipe, engine, memory_check=False)
        except SettingError as error:
            if "ran out of memory" not in str(error):
                raise
            return {"fits": False}
    return {"fits": True}


WORKS = {"steps": time_engine, "loops": time_loops, "length": try_length}

if __name__ == "__main__":
    main()
