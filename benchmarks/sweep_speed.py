"""A sweep in one batch against llama-completion, one process a run, on the same file.

    python benchmarks/sweep_speed.py [--runs 16] [--tokens 128]

Prints tokens a second of both sides, and their ratio, all measured in one go.
"""

from __future__ import annotations

import argparse
import time

from qwqlab import toolchain
from qwqlab.command import Command
from qwqlab.experiment import open_engine, read_prompts
from qwqlab.records import Request
from qwqlab.sampling import PRESETS


def main() -> None:
    """Time both sides and print the ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=128)
    args = parser.parse_args()
    prompts = read_prompts("code")
    requests = [
        Request(prompts[i % 8], PRESETS["official"], i, args.tokens) for i in range(args.runs)
    ]
    with open_engine() as engine:
        started = time.perf_counter()
        runs = dict(engine.run(requests, width=64))
        batch = time.perf_counter() - started
        commands = [
            Command(r.sampling, engine.loading, engine.path, r.prompt, r.seed, r.n_predict)
            for r in requests
        ]
    started = time.perf_counter()
    for command in commands:
        toolchain.run_tool("llama-completion", command.argv())
    single = time.perf_counter() - started
    tokens = sum(len(run.tokens) for run in runs.values())
    print(f"sweep:            {tokens / batch:7.1f} tokens/s")
    print(f"llama-completion: {tokens / single:7.1f} tokens/s, start and load included")
    print(f"ratio:            {single / batch:7.2f}")


if __name__ == "__main__":
    main()
