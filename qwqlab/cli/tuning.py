"""The commands on fine-tuning: what is learnt, the training, and the adapter as a GGUF."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .. import files
from ..progress import say


def add_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add labels, finetune and export-adapter to the parser."""
    labels = add("labels", _labels, "show which tokens are learnt with a pad token and a collator")
    labels.add_argument("--pad", required=True, help="a token by its text, as '<|im_end|>'")
    labels.add_argument("--collator", default="transformers", help="transformers or trl")
    labels.add_argument("--model", default="qwq-32b", help="whose tokenizer: qwq-32b, or a model")
    labels.add_argument("--text", action="append", help="instead of the lab's two; may be repeated")
    labels.add_argument("--json", action="store_true", help="one JSON object on stdout")
    tune = add("finetune", _finetune, "train LoRA adapters on a model in 4 bits")
    tune.add_argument("--model", default="smollm2-135m", help="a name, a .gguf file, or a folder")
    tune.add_argument(
        "--data",
        default="shopping",
        help="shopping, alpaca-cleaned (from the hub), or a file of JSON lines: Alpaca's "
        "instruction, input, output, or a chat's messages",
    )
    tune.add_argument("--steps", type=int, default=60, help="of the optimiser")
    tune.add_argument("--rank", type=int, default=32, help="of the LoRA adapters")
    tune.add_argument("--learning-rate", type=float, default=2e-4, help="at its highest")
    tune.add_argument("--batch", type=int, default=2, help="examples run at once")
    tune.add_argument("--accumulation", type=int, default=4, help="batches of a step")
    tune.add_argument("--max-tokens", type=int, default=2048, help="longer examples are cut")
    tune.add_argument(
        "--seed", type=int, default=3407, help="of the order of the examples, and of the adapters"
    )
    tune.add_argument("--engine", default="auto", help="auto, unsloth or peft")
    tune.add_argument("--pad", help="a token by its text; by default the model's own")
    tune.add_argument("--collator", default="trl", help="trl or transformers")
    tune.add_argument("--skip-file", type=Path, help="modules to keep in 16 bits: see `select`")
    tune.add_argument(
        "--memory-check", choices=("on", "off"), default="on", help="off: train whatever is free"
    )
    tune.add_argument("--no-checkpointing", action="store_true", help="faster, with more memory")
    tune.add_argument(
        "--out", type=Path, required=True, help="the run's folder; a stopped run resumes there"
    )
    tune.add_argument("--json", type=Path, metavar="OUT", help="write the result to this file")
    export = add("export-adapter", _export, "write a trained adapter as a GGUF")
    export.add_argument("folder", type=Path, help="a folder of `finetune`, or an adapter of peft's")
    export.add_argument("--gguf", type=Path, required=True, help="the file to write")
    export.add_argument("--model", default="smollm2-135m", help="what it was trained on")
    export.add_argument(
        "--merge", metavar="QUANT", help="add it to the model's weights, F16 or less"
    )


def _labels(args: argparse.Namespace) -> None:
    from ..models import QWQ_NAME, TransformersTokenizer
    from ..quant import Checkpoint
    from ..tuning import TURNS, label

    is_qwq = args.model.casefold() == QWQ_NAME
    tokenizer = (
        TransformersTokenizer(QWQ_NAME).tokenizer if is_qwq else Checkpoint(args.model).tokenizer()
    )
    # As bytes they are the shell's, and text in UTF-8 whatever the locale takes them for.
    texts = [os.fsencode(text).decode("utf-8", "surrogateescape") for text in args.text or ()]
    table = label(tokenizer, args.pad, args.collator, texts or TURNS)
    if args.json:
        print(json.dumps(asdict(table)))
        return
    print(f"Pad token {args.pad!r}, collator {args.collator}: the labels of a batch, row by row.")
    if not texts:
        print("Two answers of the lab's; the second quotes <|endoftext|>. --text gives yours.")
    print("token id    label       token")
    for row in table.rows:
        for each in row:
            how = "padding" if each.is_padding else "learnt" if each.is_learnt else "not learnt"
            print(f"{each.token:8d}  {how:10}  {each.text!r}")
        print()


def _finetune(args: argparse.Namespace) -> None:
    from ..quant import HEAD, Checkpoint, list_linears, read_skip_file, resolve_skip_list
    from ..tuning import Recipe, find_examples, finetune, is_main

    examples = find_examples(args.data)
    recipe = Recipe(
        rank=args.rank,
        alpha=args.rank,
        batch=args.batch,
        accumulation=args.accumulation,
        learning_rate=args.learning_rate,
        steps=args.steps,
        seed=args.seed,
        max_tokens=args.max_tokens,
        checkpointing=not args.no_checkpointing,
    )
    checkpoint = Checkpoint(args.model)
    keep: tuple[str, ...] = ()
    if args.skip_file:
        skip = read_skip_file(args.skip_file)
        resolved = resolve_skip_list(skip, list_linears(checkpoint.skeleton()))
        keep = tuple(name for name in resolved.kept if name != HEAD)
    found = finetune(
        checkpoint, examples, args.out, recipe, args.engine, args.pad, args.collator, keep,
        on_step=_tell, memory_check=args.memory_check == "on",
    )  # fmt: skip
    if not is_main():
        return
    print(f"{found.engine} on {found.device}: {found.adapter}")
    files.write_json(args.json, found.to_dict())


def _tell(done: int, total: int, step: Any) -> None:
    say(f"{done} of {total}: loss {step.loss:.4f}, {step.seconds:.1f} s")


def _export(args: argparse.Namespace) -> None:
    from ..models import requantize
    from ..quant import Checkpoint
    from ..tuning import ADAPTER, export_adapter, merge_adapter

    own = args.folder / ADAPTER
    checkpoint = Checkpoint(args.model)
    folder = own if own.is_dir() else args.folder
    if args.merge is None:
        print(export_adapter(folder, args.gguf, checkpoint))
        return
    adapter = export_adapter(folder, args.gguf.with_name(f".{args.gguf.name}.adapter"), checkpoint)
    try:
        print(merge_adapter(adapter, requantize(checkpoint.path, "F16"), args.gguf, args.merge))
    finally:
        adapter.unlink(missing_ok=True)
