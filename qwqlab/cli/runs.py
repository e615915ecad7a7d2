"""The commands that run a model, and keep or judge what it wrote."""

from __future__ import annotations

import argparse
import json
import os
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import files, paths
from ..errors import SettingError, StoreError
from ..llamacpp import LOADING_FLAGS
from ..progress import give, say
from ..sampling import SETTINGS

# The flags of `generate` that are not llama.cpp's, or that it takes before the others.
OWN_FLAGS = {"-h", "--help", "--model", "-m", "--prompt-file", "--adapter", "--preset", "--json"}


def add_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add generate, grade, reproduce and export to the parser."""
    generate = add("generate", _generate, "generate one text; takes llama.cpp's flags")
    flags = [setting.flags[0] for setting in SETTINGS]
    flags += [spelled[-1] for spelled in LOADING_FLAGS.values()]
    generate.formatter_class = argparse.RawDescriptionHelpFormatter
    generate.epilog = textwrap.fill(
        "Without --n-predict it writes until the model ends, as llama-completion does. It also "
        "takes llama.cpp's --prompt, --seed, --n-predict, --samplers, --sampling-seq, "
        f"--dry-sequence-breaker, --logit-bias, --ignore-eos, {', '.join(flags)}. A value that no "
        "flag sets comes from a variable, such as LLAMA_ARG_TOP_K, or from the GGUF itself "
        "(general.sampling).",
        width=78,
        break_on_hyphens=False,
    )
    generate.add_argument("--model", "-m", help="a name (else smollm2-135m) or a .gguf file")
    generate.add_argument("--prompt-file", help="taken byte for byte; or --prompt TEXT")
    generate.add_argument(
        "--adapter", help="a LoRA adapter as a GGUF; llama.cpp's own flag is --lora"
    )
    generate.add_argument("--preset", help="official, llama.cpp, article, ...; flags go over it")
    generate.add_argument("--json", action="store_true", help="one JSON object on stdout")
    grade = add("grade", _grade, "grade an answer to the article's Flappy Bird prompt", refused=2)
    grade.add_argument("file", help="a transcript, or a program whose name ends in .py")
    grade.add_argument("--json", action="store_true", help="one JSON object on stdout")
    grade.add_argument(
        "--frames", type=Path, metavar="DIR", help="write pictures of the game to this folder"
    )
    grade.add_argument(
        "--isolation",
        default="strong",
        choices=("strong", "partial", "weak"),
        help="the level below which nothing is run (default: strong)",
    )
    reproduce = add("reproduce", _reproduce, "run the experiment and write its report")
    reproduce.add_argument("--quick", action="store_true", help="about a minute on two cores")
    reproduce.add_argument("--model", default="smollm2-135m", help="a name, or a .gguf file")
    reproduce.add_argument(
        "--exact",
        action="store_true",
        help="run a large model's copy in Q8_0 on the CPU, where a run of a batch can be repeated",
    )
    reproduce.add_argument(
        "--thinking-tokens", type=int, metavar="N", help="for the thinking of a model that thinks"
    )
    reproduce.add_argument("--answer-tokens", type=int, metavar="N", help="for each answer")
    reproduce.add_argument("--json", type=Path, help="write the counts to this file")
    reproduce.add_argument("--store", type=Path, help="the store of runs (SQLite)")
    reproduce.add_argument(
        "--dask", metavar="ADDRESS", default="", help="the Dask scheduler (tls://...) to use"
    )
    export = add("export", _export, "write a store of runs as a table or as JSON")
    export.add_argument("store", type=Path, help="the store of runs (SQLite)")
    export.add_argument("file", type=Path, help="a .csv, or a .json with every run whole")


def _generate(args: argparse.Namespace) -> None:
    from ..llamacpp import read_prompt
    from ..models import inspect, model_path
    from ..sampling import Engine, parse_command, preset, read_own_settings

    path = model_path(args.model or os.environ.get("LLAMA_ARG_MODEL") or "smollm2-135m")
    info = inspect(path)
    base = preset(args.preset) if args.preset else None
    own = {} if args.preset else read_own_settings(info.sampling)
    command = parse_command(["generate", *args.flags], base, own, os.environ)
    sampling, loading = command.sampling, command.loading
    if args.prompt_file and command.prompt:
        raise SettingError("give --prompt-file or --prompt, not both")
    prompt = read_prompt(args.prompt_file) if args.prompt_file else command.prompt
    if not prompt:
        raise SettingError(
            'there is no prompt; give one, as in `qwqlab generate --prompt "Hello" -n 64`'
        )
    seed = 3407 if command.seed is None else command.seed
    if args.adapter:
        loading = replace(loading, lora=(args.adapter, *loading.lora))
    inert = sampling.inert(info.tokenizer.n_tokens or None)
    if own:
        brought = ", ".join(f"{name}={value}" for name, value in own.items())
        say(f"qwqlab: the GGUF brings settings of its own: {brought}")
    for sentence in (*command.notes, *inert):
        say(f"qwqlab: {sentence}")
    with Engine(path, loading) as engine:
        show = None if args.json else lambda _i, _t, text: give(text, end="")
        started = time.perf_counter()
        run = engine.generate(prompt, sampling, seed, command.n_predict, show)
        rate = len(run.tokens) / max(1e-9, time.perf_counter() - started)
    values = {
        "text": run.text,
        "tokens": run.tokens,
        "stop": run.stop,
        "chain": sampling.chain(),
        "inert": inert,
        "tokens_per_second": rate,
    }
    print(json.dumps(values) if args.json else "")


def _grade(args: argparse.Namespace) -> int:
    from ..grader import grade_file

    grade = grade_file(args.file, args.isolation, say)
    if args.frames:
        for name, data in grade.frames:
            with files.replacing(args.frames / f"{name}.png") as part:
                part.write_bytes(data)
    print(json.dumps(grade.to_dict(), indent=1) if args.json else grade.as_text())
    return {"pass": 0, "fail": 1}.get(grade.verdict, 2)


def _reproduce(args: argparse.Namespace) -> None:
    from ..experiments import (
        Evidence,
        RunStore,
        count_arms,
        may_think,
        open_engine,
        plan_grid,
        run_experiment,
        summarize,
    )
    from ..llamacpp import describe_build
    from ..plots import LEGEND, make_table, pick_samples, show_sample, write_report

    started = time.perf_counter()
    name = "quick" if args.quick else "full"
    path = args.store or paths.runs_dir() / f"reproduce-{name}.sqlite"
    if args.json and args.json.resolve() == path.resolve():
        raise SettingError(f"{args.json} is the store of runs; give --json another file")
    page = path.with_suffix(".html")
    if page == path:
        raise SettingError(f"{path} is where the report goes; give --store another file")
    grid = plan_grid(args.quick, args.thinking_tokens, args.answer_tokens)
    files.make_folder(paths.runs_dir())
    generated = 0

    def tell(done: int, total: int, run: Any) -> None:
        nonlocal generated
        generated += len(run.tokens)
        if done == total or done % 20 == 0:
            seconds = time.perf_counter() - started
            say(f"{done} of {total} runs, {seconds:.0f} s")

    usual = f"with smollm2-135m {1 if args.quick else 90} min on two cores"
    with open_engine(args.model, args.exact) as engine, RunStore(path) as store:
        say(f"Running the experiment ({f'on {args.dask}' if args.dask else usual}) ...")
        if args.thinking_tokens and not may_think(engine.info):
            say("the model's template knows no thinking, so --thinking-tokens changes nothing")
        if not engine.width_independent:
            say(
                f"{engine.info.path.name} runs as it is, so a run of a batch can't be repeated "
                "token for token; --exact runs a copy in Q8_0 on the CPU, of which each run can"
            )
        runs = run_experiment(engine, args.quick, store, tell, args.dask, grid)
        seconds = time.perf_counter() - started
        results = count_arms(runs)
        found = Evidence.of(engine, results)
        picked = pick_samples(runs)
        write_report(
            page,
            results,
            [show_sample(run, engine) for run in picked],
            picked[0].request.prompt,
            engine.info.path.name,
            describe_build(),
        )
    print(make_table(results).to_string(index=False))
    print(f"\n{LEGEND}\n")
    print(summarize(results))
    print(f"\nReport: {page}\nRuns:   {path}")
    values = {
        **found.to_dict(),
        "tokens_per_second": generated / seconds,
        "seconds": seconds,
        "runs_generated_tokens": generated,
    }
    files.write_json(args.json, values)


def _export(args: argparse.Namespace) -> None:
    from ..experiments import RunStore

    writers = {".csv": RunStore.export_csv, ".json": RunStore.export_json}
    write = writers.get(args.file.suffix)
    if write is None:
        raise SettingError(f"{args.file} ends in neither .csv nor .json; give one that does")
    if not args.store.is_file() or not args.store.stat().st_size:
        raise StoreError(f"{args.store} is no store; `qwqlab reproduce` prints where its own is")
    damaged: list[str] = []
    with RunStore(args.store) as store:
        give(write(store, args.file, damaged=damaged))
    for sentence in damaged:
        say(f"qwqlab: {sentence}")
