"""Fine-tuning: the lab's engine against a bare loop of TRL's, and unsloth against Hugging Face.

`python benchmarks/finetune.py` prints, with the name of what it ran on:

- the step time of the peft engine over that of a bare `trl.SFTTrainer` with the same model, the
  same settings and nothing else, in turns, each in a process of its own;
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
from pathlib import Path
from typing import Any

from qwqlab import lora_engines
from qwqlab.checkpoint import Checkpoint
from qwqlab.codecs import BnbCodec
from qwqlab.examples import Example, find_examples
from qwqlab.finetune import finetune
from qwqlab.label_masks import encode, make_collator
from qwqlab.lora_engines import load_peft, name_device, why_no_unsloth
from qwqlab.recipe import Recipe
from qwqlab.training import trainer_options

STEPS = 6
ROUNDS = 3
FIRST = 512  # tokens of the shortest example that is tried for length; then doubled
CLAIMS = {"step time": "2 times", "peak memory": "70 % less", "longest example": "13 times"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--engines", default="peft" if why_no_unsloth() else "peft,unsloth")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        print(json.dumps(WORKS[args.work.split(":")[0]](args.model, args.work)))
        return
    print(f"on {name_device()}, {args.model}")
    print(f"step time: the peft engine takes {compare_loops(args.model):.3f} times a bare TRL loop")
    engines = args.engines.split(",")
    if reason := why_no_unsloth():
        print(f"unsloth is not compared: {reason}")
    results = {engine: measure_engine(args.model, engine) for engine in engines}
    for engine, found in results.items():
        print(f"{engine}: " + ", ".join(f"{name} {value}" for name, value in found.items()))
    if len(results) == 2:
        for name, claim in CLAIMS.items():
            own, other = (results[engine].get(name) for engine in ("unsloth", "peft"))
            if own and other:
                print(f"{name}: unsloth has {own / other:.2f} times peft's; Unsloth claims {claim}")


def compare_loops(model: str) -> float:
    """The median over rounds of the engine's step time over the bare loop's."""
    ratios = []
    for _ in range(ROUNDS):
        engine, bare = (run_apart(model, work)["step time"] for work in ("steps:peft", "bare"))
        print(f"  engine {engine:.3f} s a step, bare loop {bare:.3f} s")
        ratios.append(engine / bare)
    return statistics.median(ratios)


def measure_engine(model: str, engine: str) -> dict[str, float]:
    """Step time in seconds, peak memory in GB, and where there is a GPU the longest example."""
    import torch

    found = run_apart(model, f"steps:{engine}")
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
        print(f"  {work}: {done.stderr.strip().splitlines()[-1][:200]}")
        return {}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def time_engine(model: str, work: str) -> dict[str, Any]:
    """The lab's own function."""
    with tempfile.TemporaryDirectory() as folder:
        found = finetune(
            model, find_examples("shopping"), Path(folder) / "run", Recipe(steps=STEPS),
            work.split(":")[1],
        )  # fmt: skip
    seconds = [step.seconds for step in found.steps[1:]]
    return {"step time": statistics.median(seconds), "peak memory": found.peak_memory_bytes / 1e9}


def time_bare(model: str, _: str) -> dict[str, Any]:
    """TRL's trainer on the same model, told the same; a callback that notes the time."""
    import time

    import datasets
    import transformers
    import trl

    checkpoint, recipe = Checkpoint(model), Recipe(steps=STEPS)
    tokenizer = checkpoint.tokenizer()
    end = int(tokenizer.eos_token_id)
    rows = [encode(each, tokenizer, end, recipe.max_tokens) for each in find_examples("shopping")]
    started: list[float] = []
    seconds: list[float] = []

    class Clock(transformers.TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            started.append(time.perf_counter())

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            seconds.append(time.perf_counter() - started[-1])

    with tempfile.TemporaryDirectory() as folder:
        trainer = trl.SFTTrainer(
            model=load_peft(checkpoint, (), BnbCodec(double=True), recipe),
            args=trl.SFTConfig(**trainer_options(recipe, Path(folder))),
            train_dataset=datasets.Dataset.from_list(list(rows)),
            data_collator=make_collator("trl", tokenizer, int(tokenizer.pad_token_id)),
            processing_class=tokenizer,
            callbacks=[Clock()],
        )
        trainer.train()
    return {"step time": statistics.median(seconds[1:])}


def try_length(model: str, work: str) -> dict[str, Any]:
    """One step of the recipe on examples of so many tokens."""
    import torch

    # The ledger would refuse what it thinks too long; here the card itself is asked.
    lora_engines.check_memory = lambda *_: None
    _, engine, length = work.split(":")
    n_tokens = int(length)
    text = " ".join(["one apple, two pears and"] * n_tokens)
    examples = [Example("Count.", f"{number}", text) for number in range(8)]
    with tempfile.TemporaryDirectory() as folder:
        try:
            finetune(
                model, examples, Path(folder) / "run", Recipe(steps=1, max_tokens=n_tokens), engine
            )
        except torch.cuda.OutOfMemoryError:
            return {"fits": False}
    return {"fits": True}


WORKS = {"steps": time_engine, "bare": time_bare, "length": try_length}

if __name__ == "__main__":
    main()
