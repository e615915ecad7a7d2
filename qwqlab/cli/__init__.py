"""`qwqlab`: the lab for a shell. What a program reads goes to stdout, talk to stderr."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import files, paths
from ..errors import QwqlabError, SettingError, StoreError
from ..progress import accept_any_text
from . import course, judging, quant, tuning


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; a sentence on stderr, and 1 or 2, when the lab says no.

    Commands that judge a file give 1 for a bad verdict, and so 2 for what they could not judge.
    """
    accept_any_text()
    parser = _make_parser()
    args, rest = parser.parse_known_args(argv)
    if rest and args.command != "generate":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        return int(args.run(args, rest) or 0)
    except QwqlabError as error:
        print(f"qwqlab: {error}", file=sys.stderr)
        return int(args.refused)
    except BrokenPipeError:  # the reader of a pipe has gone; nothing is left to say to it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = error.filename or "the output"
        print(f"qwqlab: {where} cannot be read or written: {error.strerror}", file=sys.stderr)
        return int(args.refused)
    except KeyboardInterrupt:
        print("qwqlab: stopped; what had finished is kept", file=sys.stderr)
        return 130


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="qwqlab", allow_abbrev=False, description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name: str, run: Any, text: str, refused: int = 1) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.set_defaults(run=run, refused=refused)
        return command

    generate = add("generate", _generate, "generate one text; takes llama.cpp's flags")
    generate.add_argument("--model", "-m", default="smollm2-135m", help="a name or a .gguf file")
    generate.add_argument("--prompt-file", help="taken byte for byte; or --prompt TEXT")
    generate.add_argument(
        "--adapter", help="a LoRA adapter as a GGUF; llama.cpp's own flag is --lora"
    )
    generate.add_argument("--preset", help="official, llama.cpp, article, ...; flags go over it")
    generate.add_argument("--json", action="store_true", help="one JSON object on stdout")
    add("fetch", _fetch, "bring a model here").add_argument("name")
    bring = add("import", _import, "bring a local GGUF into the lab")
    bring.add_argument("file")
    bring.add_argument("name", nargs="?")
    add("path", _path, "print the file of a model or a tool").add_argument("name")
    reproduce = add("reproduce", _reproduce, "run the experiment and write its report")
    reproduce.add_argument("--quick", action="store_true", help="about a minute on two cores")
    reproduce.add_argument("--model", default="smollm2-135m")
    reproduce.add_argument("--json", type=Path, help="write the counts there")
    reproduce.add_argument("--store", type=Path, help="the store of runs (SQLite)")
    reproduce.add_argument(
        "--dask", metavar="ADDRESS", default="", help="a Dask scheduler, whose workers run it"
    )
    export = add("export", _export, "write a store of runs as a table or as JSON")
    export.add_argument("store", type=Path, help="the store of runs (SQLite)")
    export.add_argument("file", type=Path, help="a .csv, or a .json with every run whole")
    course.add_commands(add)
    judging.add_commands(add)
    quant.add_commands(add)
    tuning.add_commands(add)
    return parser


def _generate(args: argparse.Namespace, flags: list[str]) -> None:
    from ..command import parse_command
    from ..engine import Engine
    from ..fetch import model_path
    from ..loading import Loading
    from ..prompt_text import read_prompt
    from ..sampling import Sampling, preset

    base = preset(args.preset) if args.preset else Sampling()
    command = parse_command(["generate", *flags], base)
    sampling = command.sampling
    if args.prompt_file and command.prompt:
        raise SettingError("give --prompt-file or --prompt, not both")
    prompt = read_prompt(args.prompt_file) if args.prompt_file else command.prompt
    seed = 3407 if command.seed is None else command.seed
    loading = command.loading
    if args.adapter:
        loading = Loading.from_dict({**loading.to_dict(), "lora": [args.adapter, *loading.lora]})
    with Engine(model_path(args.model), loading) as engine:
        show = None if args.json else lambda _i, _t, text: print(text, end="", flush=True)
        started = time.perf_counter()
        run = engine.generate(prompt, sampling, seed, command.n_predict, show)
        rate = len(run.tokens) / max(1e-9, time.perf_counter() - started)
    for sentence in (*command.notes, *sampling.inert()):
        print(f"qwqlab: {sentence}", file=sys.stderr)
    if args.json:
        values = {
            "text": run.text,
            "tokens": run.tokens,
            "stop": run.stop,
            "chain": sampling.chain(),
            "inert": sampling.inert(),
            "tokens_per_second": rate,
        }
        print(json.dumps(values))
    else:
        print()


def _fetch(args: argparse.Namespace, _: list[str]) -> None:
    from ..fetch import fetch

    print(fetch(args.name))


def _import(args: argparse.Namespace, _: list[str]) -> None:
    from ..fetch import import_local

    print(import_local(args.file, args.name))


def _path(args: argparse.Namespace, _: list[str]) -> None:
    from .. import toolchain
    from ..fetch import model_path

    print(toolchain.tool(args.name) if args.name.startswith("llama-") else model_path(args.name))


def _reproduce(args: argparse.Namespace, _: list[str]) -> None:
    from .. import experiment, report, toolchain
    from ..runs import RunStore

    started = time.perf_counter()
    name = "quick" if args.quick else "full"
    path = args.store or paths.runs_dir() / f"reproduce-{name}.sqlite"
    files.make_folder(paths.runs_dir())
    if args.json:
        _check_writable(args.json, path)
    generated = 0

    def tell(done: int, total: int, run: Any) -> None:
        nonlocal generated
        generated += len(run.tokens)
        if done == total or done % 20 == 0:
            seconds = time.perf_counter() - started
            print(f"{done} of {total} runs, {seconds:.0f} s", file=sys.stderr, flush=True)

    length = f"{'1' if args.quick else '9'} min on two cores"
    print(
        f"Running the experiment ({f'on {args.dask}' if args.dask else length}) ...",
        file=sys.stderr,
    )
    with experiment.open_engine(args.model) as engine, RunStore(path) as store:
        runs = experiment.run_experiment(engine, args.quick, store, tell, args.dask)
        seconds = time.perf_counter() - started
        results = experiment.count(runs)
        picked = report.pick_samples(runs)
        samples = [report.show_sample(run, engine) for run in picked]
        page = report.write_report(
            paths.runs_dir() / f"reproduce-{name}.html",
            results,
            samples,
            picked[0].request.prompt,
            engine.info.path.name,
            toolchain.describe_build(),
        )
    print(report.make_table(results).to_string(index=False))
    print(f"\n{report.LEGEND}\n")
    print(experiment.summarize(results))
    print(f"\nReport: {page}\nRuns:   {path}")
    values = {
        "arms": [arm.to_dict() for arm in results],
        "tokens_per_second": generated / seconds,
        "seconds": seconds,
        "runs_generated_tokens": generated,
    }
    quant.write_result(args.json, values)


def _check_writable(target: Path, store: Path) -> None:
    """Say before the work, not after it, that its result could not be written."""
    if target.resolve() == store.resolve():
        raise SettingError(f"{target} is the store of runs; give --json another file")
    quant.check_target(target)


def _export(args: argparse.Namespace, _: list[str]) -> None:
    from ..runs import RunStore

    writers = {".csv": RunStore.export_csv, ".json": RunStore.export_json}
    write = writers.get(args.file.suffix)
    if write is None:
        raise SettingError(f"{args.file} ends in neither .csv nor .json; give one that does")
    if not args.store.is_file() or args.store.stat().st_size == 0:
        raise StoreError(f"{args.store} holds no runs; `qwqlab reproduce` says where its own are")
    damaged: list[str] = []
    with RunStore(args.store) as store:
        print(write(store, args.file, damaged=damaged))
    for sentence in damaged:
        print(f"qwqlab: {sentence}", file=sys.stderr)
