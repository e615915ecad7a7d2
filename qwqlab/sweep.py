"""A grid of runs through an engine, into a store, resumed where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from . import gguf_file, hashes, toolchain
from .engine import Engine
from .records import Request, Run
from .replay import command_of
from .runs import RunStore
from .stored import run_key

WIDTH = 32

OnRun = Callable[[int, int, Run], None]
"""Called with the runs done, the runs asked for, and the run that has just finished."""


def sweep(
    engine: Engine,
    requests: Sequence[Request],
    store: RunStore | None = None,
    experiment: str = "sweep",
    width: int = WIDTH,
    on_run: OnRun | None = None,
) -> list[Run]:
    """Run what the store does not hold yet, at most `width` at once; the runs in order.

    Each run is in the store as soon as it has finished, so a sweep that is killed goes on where
    it stopped. What it then gives is the same where `Engine.width_independent` holds. A run that
    was stopped on request is not stored: it is run anew.
    """
    model_sha256 = gguf_file.hash_model(engine.info)
    build = toolchain.describe_build()
    settings = engine.loading.to_dict()
    if engine.loading.lora:
        settings["lora_sha256"] = [hashes.sha256_of(Path(path)) for path in engine.loading.lora]
    commands = [command_of(request, engine).line() for request in requests]
    keys = [run_key(r, model_sha256=model_sha256, build=build, settings=settings) for r in requests]
    runs: dict[int, Run] = {}
    if store is not None:
        for index, (key, request) in enumerate(zip(keys, requests, strict=True)):
            kept = store.get(key, experiment=experiment, label=request.label)
            if kept is not None:
                runs[index] = kept.run
    missing = [index for index in range(len(requests)) if index not in runs]
    for place, run in engine.run([requests[index] for index in missing], width=width):
        runs[missing[place]] = run
        if store is not None:
            store.add(
                run,
                experiment=experiment,
                model=engine.info.path.name,
                model_sha256=model_sha256,
                build=build,
                settings=settings,
                command=commands[missing[place]],
            )
        if on_run is not None:
            on_run(len(runs), len(requests), run)
    return [runs[index] for index in range(len(requests))]
