"""One report on one graphics card: what works there, how fast it is, and what the article says.

    make gpu                              # or: python benchmarks/gpu.py
    python benchmarks/gpu.py --stand-in   # no card: its code runs on a device that is this CPU

Each part runs in a process of its own. One that fails is reported with the reason, and the others
go on; the report is written anew after each, as JSON and as Markdown, so that a stop loses
nothing. `--only card,tests` chooses parts. Beside Unsloth's claims stands what was measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from qwqlab import files, paths, preflight
from qwqlab.errors import explain_exit
from qwqlab.experiments import measure
from qwqlab.grader import run_arms
from qwqlab.llamacpp import describe_build, list_devices, run_tool
from qwqlab.models import choose_model, inspect, model_path

TESTS = ("engine", "loading", "devices", "finetune", "probe")  # those that meet a device
HERE = Path(__file__).parent
Found = dict[str, Any]


def main() -> None:
    """Run the parts, and write the report after each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help="a GGUF; by default the best that is here and fits")
    parser.add_argument("--train", default="smollm2-135m", help="what is fine-tuned")
    parser.add_argument("--tokens", type=int, default=16_000, help="of each of the four commands")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    parser.add_argument("--stand-in", action="store_true", help="use this CPU as if it were a GPU")
    parser.add_argument("--out", type=Path, default=paths.build_dir() / "gpu")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        try:
            found = PARTS[args.part](args)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it is what the report tells
            found = {"failed": f"{type(error).__name__}: {error}"}
        print(json.dumps(found))
        return
    if args.stand_in:
        os.environ["QWQLAB_DEVICE"] = "rpc"
    report: Found = {"stand_in": args.stand_in, "parts": {}}
    for part in args.only.split(","):
        print(f"{part} ...", flush=True)
        report["parts"][part] = run_apart(part)
        write(report, args.out)
    print(f"The report is in {args.out}.")


def run_apart(part: str) -> Found:
    """Run a part in a process of its own; what it found, or why it failed."""
    started = time.monotonic()
    command = [sys.executable, __file__, *sys.argv[1:], "--part", part]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    seconds = round(time.monotonic() - started, 1)
    if done.returncode:
        return {"seconds": seconds, "failed": explain_exit(done.returncode)}
    return {"seconds": seconds, **json.loads(done.stdout.splitlines()[-1])}


def look(args: argparse.Namespace) -> Found:
    """The card as llama.cpp and PyTorch see it, and the machine around it."""
    import torch

    devices = [
        {"name": each.name, "description": each.description, "gb": each.total / 1e9}
        for each in list_devices()
    ]
    if not devices:
        raise SystemExit("llama.cpp sees no graphics card: notebook 01 says how to build for one.")
    cuda = torch.cuda.is_available()
    return {
        "devices": devices,
        "build": describe_build(),
        "torch": f"{torch.__version__}, {torch.cuda.get_device_name(0) if cuda else 'no GPU'}",
        "machine": f"{platform.platform()}, {preflight.count_cpus()} cores, "
        f"{preflight.count_memory() / 1e9:.0f} GB",
        "model": str(inspect(find_model(args)).path.name),
    }


def find_model(args: argparse.Namespace) -> Path:
    return model_path(args.model or choose_model())


def test(args: argparse.Namespace) -> Found:
    """The tests that meet a device."""
    # The stand-in has one thread; attention sums in another order on two.
    environment = {**os.environ, **({"LLAMA_ARG_THREADS": "1"} if args.stand_in else {})}
    what = [f"tests/test_{name}.py" for name in TESTS]
    return run_pytest(what, ["-m", "not nightly"], environment)


def run_notebooks(_args: argparse.Namespace) -> Found:
    """Every notebook, as the tests run them: with fewer samples in the longest cells."""
    book = paths.build_dir() / "gpu-book"
    environment = {**os.environ, "QWQLAB_BOOK": str(book), "QWQLAB_PROGRESS": str(book / "done")}
    write_book = [sys.executable, "docs/make_book.py", "write", "1", "short"]
    subprocess.run(write_book, cwd=paths.CHECKOUT, env=environment, check=True, stdout=sys.stderr)
    return run_pytest(["--nbmake", "--overwrite", f"@{book / 'order'}"], [], environment)


def run_pytest(
    what: list[str], options: list[str], environment: dict[str, str] | None = None
) -> Found:
    """Run pytest; count what passed, and name what did not."""
    with tempfile.TemporaryDirectory() as folder:
        junit = Path(folder) / "junit.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={junit}", *options, *what]
        subprocess.run(command, cwd=paths.CHECKOUT, env=environment, stdout=sys.stderr, check=False)
        cases = list(ElementTree.parse(junit).iter("testcase"))
    bad = [
        each for each in cases if each.find("failure") is not None or each.find("error") is not None
    ]
    skipped = sum(each.find("skipped") is not None for each in cases)
    return {
        "passed": len(cases) - len(bad) - skipped,
        "skipped": skipped,
        "not_passed": [f"{each.get('classname')}: {each.get('name')}" for each in bad],
        "seconds_each": {str(each.get("name")): float(each.get("time") or 0) for each in cases}
        if "--nbmake" in what
        else {},
    }


def time_tokens(args: argparse.Namespace) -> Found:
    """llama-bench's tokens a second, with every layer on the card and with none."""
    command = ["-m", str(find_model(args)), "-ngl", "0,99", "-r", "3", "-o", "json"]
    rows = json.loads(run_tool("llama-bench", command).stdout)
    return {
        "rows": [
            {
                "layers on the card": "all" if row["n_gpu_layers"] else "none",
                "what": "answer" if row["n_gen"] else "prompt",
                "tokens a second": round(row["avg_ts"], 1),
            }
            for row in rows
        ]
    }


def run_commands(args: argparse.Namespace) -> Found:
    """The article's four commands: what each wrote, how fast, and whether it loops."""
    with contextlib.redirect_stdout(sys.stderr):
        transcripts = run_arms(find_model(args), args.tokens)
    rows = []
    for each in transcripts:
        found, n = measure(each.run), len(each.run.tokens)
        rows.append(
            {
                "command": each.arm.name,
                "tokens": n,
                "tokens a second": round(n / each.run.seconds, 1),
                "end": each.run.stop,
                "loops": found.loop,
                "valid code": found.valid_code,
            }
        )
    return {"rows": rows}


def run_experiment(args: argparse.Namespace) -> Found:
    """The experiment's quick grid, as `qwqlab reproduce` counts it."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "report.json"
        program = Path(sys.executable).with_name("qwqlab")
        command = [str(program), "reproduce", "--quick", "--model", str(find_model(args))]
        command += ["--json", str(out)]
        subprocess.run(command, check=True, stdout=sys.stderr)
        return {"report": json.loads(out.read_text(encoding="utf-8"))}


def train(args: argparse.Namespace) -> Found:
    """The article's table: unsloth against Hugging Face's peft with the same recipe."""
    done = subprocess.run(
        [sys.executable, HERE / "finetune.py", "--model", args.train, "--table"],
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return {"rows": json.loads(done.stdout.splitlines()[-1])}


PARTS: dict[str, Callable[[argparse.Namespace], Found]] = {
    "card": look,
    "tests": test,
    "notebooks": run_notebooks,
    "speed": time_tokens,
    "commands": run_commands,
    "experiment": run_experiment,
    "training": train,
}


def write(report: Found, folder: Path) -> None:
    """Write the report as JSON and as Markdown, under the card's name."""
    card = report["parts"].get("card", {}).get("devices", [{}])[0].get("description", "no card")
    name = "stand-in" if report["stand_in"] else re.sub(r"\W+", "-", card).strip("-").lower()
    files.make_folder(folder)
    files.write_json(folder / f"{name}.json", report)
    files.write_text(folder / f"{name}.md", to_markdown(report, card))


def to_markdown(report: Found, card: str) -> str:
    lines = [f"# qwqlab on {card}", ""]
    if report["stand_in"]:
        lines = [
            "# qwqlab on a stand-in for a graphics card",
            "",
            "This machine has none. Its own CPU took the part of one, through llama.cpp's RPC "
            "backend, so that the report's code runs. No figure here is a graphics card's.",
            "",
        ]
    for part, found in report["parts"].items():
        lines += [f"## {part}", ""]
        if "failed" in found:
            lines += [f"Failed: {found['failed']}", ""]
            continue
        for key, value in found.items():
            if key == "rows" and value:
                lines += ["", *_table(value), ""]
            elif key != "report" and value not in ([], {}):
                lines.append(f"- {key}: {value}")
        lines.append("")
    return "\n".join(lines)


def _table(rows: list[Found]) -> list[str]:
    heads = list(rows[0])
    body = ["| " + " | ".join(str(row[head]) for head in heads) + " |" for row in rows]
    return ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads), *body]


if __name__ == "__main__":
    main()
