"""The lab against llama.cpp's own programs, all sides in one go, as ratios.

    python -m qwqlab.llamacpp.tools llama-server     # once: builds the server too
    python benchmarks/speed.py [--prompts 8] [--seeds 8] [--tokens 256]

All sides read the same file, the lab's copy for sweeps, with the same flags, and go on past the
end of an answer, so that every run has all its tokens, as those of llama-batched-bench have.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import statistics
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

from qwqlab.experiments import open_engine, read_prompts
from qwqlab.llamacpp import run_tool, tool
from qwqlab.sampling import PRESETS, Engine, Request, command_of

PAIRS = 9  # single runs of each side, by turns
ROUNDS = 3  # batches of each side, by turns
TOTAL_TIME = re.compile(r"total time =\s*([\d.]+) ms")
SERVER_START = 60.0  # seconds


def main() -> None:
    """Time all sides and print the ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=256)
    args = parser.parse_args()
    sampling = replace(PRESETS["official"], ignore_eos=True)
    requests = [
        Request(prompt, sampling, seed, args.tokens)
        for prompt in read_prompts("long")[: args.prompts]
        for seed in range(args.seeds)
    ]
    width = len(requests)
    with open_engine() as engine:
        print(f"{engine.info.path.name}, {engine.loading.threads()} threads, {width} runs\n")
        compare_one(engine, requests[0])
        seconds = compare_batch(engine, requests)
        server = time_server(engine, requests)
        tell(f"llama-server, {width} slots", server / seconds, f"{seconds:.0f} : {server:.0f} s")
        single = time_processes(engine, requests)
        tell(f"{width} llama-completion", single / seconds, f"{seconds:.0f} : {single:.0f} s")


def tell(against: str, ratio: float, figures: str) -> None:
    """One line of the table: how many times as fast as the other side the lab is."""
    print(f"{ratio:6.3f} x {against:34} (lab : other = {figures})", flush=True)


def compare_one(engine: Engine, request: Request) -> None:
    """One sequence: tokens a second of `Engine.generate` and of llama-completion, by turns.

    Both include the prompt; llama-completion's loading is left out, as the lab's is.
    """
    command = command_of(request, engine)
    ratios, rates = [], []
    for _ in range(PAIRS):
        started = time.perf_counter()
        run = engine.generate(request.prompt, request.sampling, request.seed, request.n_predict)
        lab = len(run.tokens) / (time.perf_counter() - started)
        said = run_tool("llama-completion", command.argv()).stderr
        total = TOTAL_TIME.search(said)
        assert total is not None, said
        other = len(run.tokens) / (float(total[1]) / 1000)
        ratios.append(lab / other)
        rates.append((lab, other))
    lab, other = (statistics.median(side) for side in zip(*rates, strict=True))
    figures = f"{lab:.0f} : {other:.0f} tokens/s, median of {PAIRS}"
    tell("one llama-completion", statistics.median(ratios), figures)


def compare_batch(engine: Engine, requests: Sequence[Request]) -> float:
    """The sweep's rate of generation against llama-batched-bench's, by turns.

    Gives the seconds that a sweep takes, the median of its turns.
    """
    n_prompt = round(statistics.mean(len(engine.model.tokenize(r.prompt)) for r in requests))
    rounds = []
    for _ in range(ROUNDS):
        bench = time_batched_bench(engine, n_prompt, requests[0].n_predict, len(requests))
        seconds, rate = time_sweep(engine, requests)
        rounds.append((rate / bench, rate, bench, seconds))
    ratio, rate, bench, seconds = (
        float(statistics.median(side)) for side in zip(*rounds, strict=True)
    )
    figures = f"{rate:.0f} : {bench:.0f} tokens/s, median of {ROUNDS}"
    tell("llama-batched-bench, generation", ratio, figures)
    return seconds


def time_sweep(engine: Engine, requests: Sequence[Request]) -> tuple[float, float]:
    """Seconds of a sweep, and tokens a second after the prompts were read."""
    begun: list[float] = []

    def note(index: int, _token: int, _text: str) -> None:
        if len(begun) < len(requests):
            begun.append(time.perf_counter())

    started = time.perf_counter()
    runs = dict(engine.run(requests, width=len(requests), on_token=note))
    ended = time.perf_counter()
    n_tokens = sum(len(run.tokens) for run in runs.values()) - len(runs)
    return ended - started, n_tokens / (ended - begun[-1])


def time_batched_bench(engine: Engine, n_prompt: int, n_tokens: int, width: int) -> float:
    """Tokens a second that llama-batched-bench generates: it decodes, and samples nothing."""
    shape = ["-npp", n_prompt, "-ntg", n_tokens, "-npl", width]
    size = ["-c", (n_prompt + n_tokens) * width, "-t", engine.loading.threads()]
    args = ["-m", engine.path, *shape, *size, *engine.loading.flags(), "--output-format", "jsonl"]
    out = run_tool("llama-batched-bench", [str(arg) for arg in args]).stdout
    line = next(line for line in out.splitlines() if line.startswith("{"))
    return float(json.loads(line)["speed_tg"])


def time_server(engine: Engine, requests: Sequence[Request]) -> float:
    """Seconds that llama-server takes for all requests at once, a slot each."""
    cells = max(len(engine.model.tokenize(r.prompt)) + r.n_predict for r in requests)
    cells = -(-cells // 256) * 256
    with serve(engine, len(requests), cells) as url, ThreadPoolExecutor(len(requests)) as pool:
        ask(url, requests[0])  # as the lab's engine, it is warm when the clock starts
        started = time.perf_counter()
        list(pool.map(lambda request: ask(url, request), requests))
        return time.perf_counter() - started


def time_processes(engine: Engine, requests: Sequence[Request]) -> float:
    """Seconds that one llama-completion after another takes, start and load included."""
    started = time.perf_counter()
    for request in requests:
        run_tool("llama-completion", command_of(request, engine).argv())
    return time.perf_counter() - started


@contextmanager
def serve(engine: Engine, slots: int, cells: int) -> Iterator[str]:
    """The address of a llama-server with so many slots, of so many tokens each."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    args = ["-m", engine.path, "--port", port, "-np", slots, "-c", cells * slots, "--no-webui",
            "-t", engine.loading.threads(), *engine.loading.flags()]  # fmt: skip
    program = [str(tool("llama-server")), *map(str, args)]
    server = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + SERVER_START
        while not is_up(f"{url}/health"):
            if server.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"llama-server does not start: {' '.join(program)}")
            time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.wait()


def is_up(url: str) -> bool:
    """Whether a server answers that it is ready."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def ask(url: str, request: Request) -> None:
    """One completion from llama-server, with the request's sampling."""
    s = request.sampling
    body = {"prompt": request.prompt, "n_predict": request.n_predict, "seed": request.seed,
            "samplers": list(s.samplers), "temperature": s.temp, "top_k": s.top_k,
            "top_p": s.top_p, "min_p": s.min_p, "repeat_penalty": s.repeat_penalty,
            "ignore_eos": s.ignore_eos}  # fmt: skip
    post = urllib.request.Request(
        f"{url}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(post) as answer:
        n_tokens = json.load(answer)["tokens_predicted"]
    assert n_tokens == request.n_predict, f"llama-server gave {n_tokens} tokens"


if __name__ == "__main__":
    main()
