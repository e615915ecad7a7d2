"""The commands on few bits: measure what they lose, choose, evaluate, audit, and count memory."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import files
from ..errors import SettingError
from ..progress import say


def add_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add quant-error, select, evaluate, audit and ledger to the parser."""
    model_help = "a name, a .gguf file, or a folder that transformers reads"
    error = add("quant-error", _quant_error, "measure the loss of few bits in each linear module")
    error.add_argument("model", help=model_help)
    error.add_argument("--type", default="nf4", help="nf4, nf4-dq, fp4, nf4-b32, Q4_K, ...")
    error.add_argument("--text", type=Path, help="calibrate with this file instead of the lab's")
    error.add_argument("--weights-only", action="store_true", help="no calibration, less memory")
    error.add_argument("--tokens", type=int, default=2048, help="of the calibration text")
    error.add_argument("--json", type=Path, metavar="OUT", help="write the errors to this file")
    select = add("select", _select, "choose modules to keep in 16 bits under a budget")
    select.add_argument("model", help=model_help)
    select.add_argument(
        "--extra-percent",
        type=float,
        required=True,
        help="budget, in percent of what the modules take in 4 bits",
    )
    select.add_argument("--type", default="nf4-dq", help="nf4-dq, nf4, fp4-dq or fp4")
    select.add_argument("--metric", default="output_rel_mse", help="or weight_rel_mse, kurtosis")
    select.add_argument("--text", type=Path, help="calibrate with this file instead of the lab's")
    select.add_argument("--json", type=Path, metavar="OUT", help="write the choice to this file")
    evaluate = add("evaluate", _evaluate, "measure perplexity, KL divergence and agreement")
    evaluate.add_argument("model", help=model_help)
    evaluate.add_argument(
        "--skip-file", type=Path, help="a skip list, or what `select --json` wrote: quantise so"
    )
    evaluate.add_argument("--type", help="quantise to this type (nf4-dq if a skip file is given)")
    evaluate.add_argument("--text", type=Path, help="read this file instead of the lab's")
    evaluate.add_argument("--tokens", type=int, default=4096, help="of the text")
    evaluate.add_argument("--json", type=Path, metavar="OUT", help="write the numbers to this file")
    audit = add("audit", _audit, "count bits a weight and GB of a skip list, without weights")
    audit.add_argument("config", help="a config.json, a folder, or QwQ-32B")
    audit.add_argument("--skip-file", type=Path, help="use it instead of the configuration's own")
    audit.add_argument("--json", action="store_true", help="one JSON object on stdout")
    ledger = add("ledger", _ledger, "show how much memory each part of fine-tuning takes")
    ledger.add_argument("model", help="QwQ-32B, a config.json, or a local model")
    ledger.add_argument("--quant", default="nf4", help="nf4, fp4 (double quantised) or bf16")
    ledger.add_argument("--rank", type=int, default=32, help="of the LoRA adapters")
    ledger.add_argument("--batch", type=int, default=2, help="sequences run at once")
    ledger.add_argument("--context", type=int, default=2048, help="tokens of each sequence")
    ledger.add_argument("--engine", default="peft", help="peft, or unsloth on a GPU")
    ledger.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _quant_error(args: argparse.Namespace) -> None:
    from ..quant import quant_error

    found = quant_error(
        args.model, args.type, args.text, not args.weights_only, args.tokens, on_module=_tell_module
    )
    for module in sorted(found.modules, key=_worst)[:10]:
        output = "" if module.output_rel_mse is None else f", outputs {module.output_rel_mse:.5f}"
        print(f"{module.name}: weights {module.weight_rel_mse:.5f}{output}")
    files.write_json(args.json, found.to_dict())


def _worst(module: Any) -> float:
    return -float(module.weight_rel_mse if module.output_rel_mse is None else module.output_rel_mse)


def _select(args: argparse.Namespace) -> None:
    from .. import quant

    codec = quant.find_codec(args.type)
    if not isinstance(codec, quant.BnbCodec):
        raise SettingError(f"{args.type} is no type of bitsandbytes; select takes nf4 and fp4")
    quant.check_budget(args.extra_percent)
    if args.metric not in quant.METRICS:
        raise SettingError(f"metric={args.metric!r} is not one of {', '.join(quant.METRICS)}")
    checkpoint = quant.Checkpoint(args.model)
    outputs = args.metric == "output_rel_mse"
    errors = quant.quant_error(checkpoint, args.type, args.text, outputs, on_module=_tell_module)
    chosen = quant.select(errors, args.extra_percent, args.metric)
    skeleton = checkpoint.skeleton()
    linears = quant.list_linears(skeleton)
    skip = quant.make_skip_list(chosen.keep, linears)
    how = quant.verify_skip_list(checkpoint, skip, chosen.keep, codec)
    tied = bool(skeleton.all_tied_weights_keys)
    values = {
        "skip": skip,
        **chosen.to_dict(),
        "verified": True,
        "verified_by": how,
        "config": quant.bnb_options(skip, codec),
        "tensor_types": quant.tensor_types(chosen.keep, linears, tied),
    }
    print("\n".join(chosen.keep) or "nothing but the head fits the budget")
    say(
        f"{len(chosen.keep)} modules, {chosen.extra_bytes:,} bytes ({chosen.extra_percent:.2f} %), "
        f"{chosen.bits_per_weight:.3f} bits a weight; {how}"
    )
    files.write_json(args.json, values)


def _evaluate(args: argparse.Namespace) -> None:
    from ..quant import evaluate, read_skip_file

    skip = None if args.skip_file is None else read_skip_file(args.skip_file)
    codec = args.type or (None if skip is None else "nf4-dq")
    quality, kept = evaluate(args.model, codec, skip, args.text, args.tokens)
    for name in ("perplexity", "kl_mean", "kl_p99", "top1_agreement"):
        low, high = getattr(quality, f"{name}_interval")
        print(f"{name}: {getattr(quality, name):.4f} ({low:.4f} to {high:.4f})")
    files.write_json(args.json, {**quality.to_dict(), "type": codec, "kept": kept})


def _audit(args: argparse.Namespace) -> None:
    from ..quant import audit, read_shapes, read_skip_file

    shapes = read_shapes(args.config)
    skip = shapes.skip if args.skip_file is None else read_skip_file(args.skip_file)
    found = audit(shapes, skip, shapes.double)
    if args.json:
        print(json.dumps(found.to_dict()))
        return
    print(found.as_text())


def _ledger(args: argparse.Namespace) -> None:
    from ..quant import ledger, read_shapes

    shapes = read_shapes(args.model)
    found = ledger(shapes, args.quant, args.rank, args.batch, args.context, engine=args.engine)
    print(json.dumps(found.to_dict()) if args.json else found.as_text())


def _tell_module(done: int, total: int, module: Any) -> None:
    if done == total or done % 20 == 0:
        say(f"{done} of {total} modules")
