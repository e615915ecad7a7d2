"""A grid of runs into a store, resumed where it stopped; an engine runs it, or a cluster does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import files
from ..errors import ContextError
from ..llamacpp import Loading, describe_build
from ..models import hash_model, inspect
from ..sampling import Command, Engine, Request, Run
from .store import RunStore, run_key

WIDTH = 32

OnRun = Callable[[int, int, Run], None]
"""Called with the runs done, the runs asked for, and the run that has just finished."""

Runner = Callable[[Sequence[Request]], Iterator[tuple[int, Run]]]
"""Runs requests and yields the place of each among them, with its run, as it finishes."""


@dataclass(frozen=True)
class Source:
    """Where runs come from: together with a request, all that decides its tokens.

    path, loading: the model's file, and how it is loaded.
    model_sha256:  of the file; of an adapter's too, in `settings`.
    build:         llama.cpp's version, compiler and backend.
    """

    path: str
    loading: Loading
    model_sha256: str
    build: str
    settings: dict[str, Any]

    @classmethod
    def of(cls, path: str, loading: Loading) -> Source:
        """Return the source that a file is now: hashed, unless its hash is remembered."""
        settings = loading.to_dict()
        if loading.lora:
            settings["lora_sha256"] = [files.sha256_of(Path(each)) for each in loading.lora]
        model_sha256 = hash_model(inspect(path))
        return cls(path, loading, model_sha256, describe_build(), settings)

    def key_of(self, request: Request) -> str:
        """Return the key by which a store knows the run (see `run_key`)."""
        return run_key(
            request, model_sha256=self.model_sha256, build=self.build, settings=self.settings
        )

    def command_of(self, request: Request) -> Command:
        """Return the llama-completion command that reproduces a request."""
        r = request
        return Command(r.sampling, self.loading, self.path, r.prompt, r.seed, r.n_predict)


def sweep(
    engine: Engine,
    requests: Sequence[Request],
    store: RunStore | None = None,
    experiment: str = "sweep",
    width: int = WIDTH,
    on_run: OnRun | None = None,
) -> list[Run]:
    """Run what the store does not hold yet, at most `width` at once; return all runs in order.

    Where the memory has no room for the caches of so many, fewer run at once. Where
    `Engine.width_independent` holds, the runs are those of one go, however often it was
    interrupted. Raise ModelFileError if the model's file is no longer the one that was loaded.
    """
    source = Source.of(engine.path, engine.loading)
    engine.files.check()  # or its runs would be kept under the hash of another file

    def run(missing: Sequence[Request]) -> Iterator[tuple[int, Run]]:
        return run_in_memory(engine, missing, width)

    return fill(source, requests, run, store, experiment, on_run)


def run_in_memory(
    engine: Engine, requests: Sequence[Request], width: int
) -> Iterator[tuple[int, Run]]:
    """Do `Engine.run`; where there is no room for a context, try half the width, and half that."""
    while True:
        runs = engine.run(requests, width=width)
        try:
            first = next(runs, None)
        except ContextError:
            if width == 1:
                raise
            width //= 2
            continue
        if first is not None:
            yield first
            yield from runs
        return


def fill(
    source: Source,
    requests: Sequence[Request],
    runner: Runner,
    store: RunStore | None,
    experiment: str,
    on_run: OnRun | None,
) -> list[Run]:
    """Run what the store does not hold yet by `runner`; return all runs in order.

    Each run is in the store as soon as it has finished, so a sweep that is killed goes on where
    it stopped. A run that was stopped on request is not stored: it is run anew. Raise SettingError
    for a prompt that no command line can hold, before anything runs.
    """
    runs: dict[int, Run] = {}
    if store is not None:
        for index, request in enumerate(requests):
            kept = store.get(source.key_of(request), experiment=experiment, label=request.label)
            if kept is not None:
                runs[index] = kept.run
    missing = [index for index in range(len(requests)) if index not in runs]
    commands = [source.command_of(requests[index]).line() for index in missing]
    for place, run in runner([requests[index] for index in missing]):
        runs[missing[place]] = run
        if store is not None:
            store.add(
                run,
                experiment=experiment,
                model=Path(source.path).name,
                model_sha256=source.model_sha256,
                build=source.build,
                settings=source.settings,
                command=commands[place],
            )
        if on_run is not None:
            on_run(len(runs), len(requests), run)
    return [runs[index] for index in range(len(requests))]
