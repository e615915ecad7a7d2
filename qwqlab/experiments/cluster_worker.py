"""A worker's side of a sweep over a cluster: its engine, and how it tells of each run."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from distributed import Client, Worker, get_client, get_worker
from distributed.comm import get_address_host
from distributed.diagnostics.plugin import WorkerPlugin

from .. import paths, toolchain
from ..engine import Engine
from ..errors import ClusterError, QwqlabError, SettingError
from ..loading import count_threads
from ..records import Request, Run
from .sweeps import Source

# The scheduler keeps a topic's last thousand events; all sweeps share these, so that this is all.
TOPIC = "qwqlab-runs"
PLACES = "qwqlab-places"  # of the same runs, their places in the grid alone


class Bench(WorkerPlugin):
    """A worker's engine, for one sweep: opened by its first piece, closed with the sweep."""

    def __init__(self, source: Source, width: int, neighbours: dict[str, int]) -> None:
        self.source, self.width, self.neighbours = source, width, neighbours
        self.sender_threads = source.loading.threads()
        self.name = f"qwqlab-{uuid.uuid4().hex}"

    def setup(self, worker: Worker) -> None:
        """Called by Dask on each worker, also on one that joins later."""
        self.address = worker.address
        self._claim = threading.Lock()
        self._engine: Engine | None = None
        self._over = False

    def teardown(self, worker: Worker) -> None:
        """Called by Dask when the sweep is over, or the worker's time: what runs is ended."""
        self._over = True
        if self._engine is not None:
            self._engine.close()

    def run(self, requests: Sequence[Request]) -> Iterator[tuple[int, Run]]:
        """As Engine.run; a second piece on this worker waits for the first."""
        with self._claim:
            if self._engine is None and not self._over:
                self._engine = self._open()
            if self._over:  # perhaps while the engine was opened
                self.teardown(get_worker())
                return
            assert self._engine is not None
            for place, run in self._engine.run(requests, width=self.width):
                if run.stop != "stopped":
                    yield place, run

    def _open(self) -> Engine:
        build = toolchain.describe_build()
        if build != self.source.build:
            raise ClusterError(
                f"worker {self.address} has {build}, and the sweep was begun with "
                f"{self.source.build}; give both the same build"
            )
        loading = self.source.loading
        threads = loading.n_threads or self._count_threads()
        engine = Engine(
            self._find(self.source.path),
            replace(
                loading,
                n_threads=threads,
                n_threads_batch=loading.n_threads_batch or threads,
                lora=tuple(self._find(path) for path in loading.lora),
            ),
        )
        try:
            self._check(engine)
        except BaseException:
            engine.close()
            raise
        return engine

    def _check(self, engine: Engine) -> None:
        here = Source.of(engine.path, engine.loading)
        engine.files.check()
        adapters = "lora_sha256"
        if here.model_sha256 != self.source.model_sha256:
            raise ClusterError(
                f"{engine.path} on worker {self.address} is another file than the sweep's: its "
                f"sha256 is {here.model_sha256[:12]}…, not {self.source.model_sha256[:12]}…; copy "
                "the sweep's there"
            )
        if here.settings.get(adapters) != self.source.settings.get(adapters):
            raise ClusterError(
                f"the adapter on worker {self.address} is another file than the sweep's; copy the "
                "sweep's there"
            )
        if self.width > 1 and not engine.width_independent:
            raise SettingError(
                f"width={self.width}: what {engine.path} writes with this loading depends on what "
                "is beside it in a batch, and so on the cluster; give width=1, or load as "
                "experiment.LOADING does"
            )

    def _find(self, path: str) -> str:
        """The sender's path, or the file of that name in this worker's own folder of models."""
        places = (Path(path), paths.models_dir() / Path(path).name)
        for place in places:
            if place.is_file():
                return str(place)
        raise ClusterError(
            f"worker {self.address} has neither {places[0]} nor {places[1]}; copy the file there"
        )

    def _count_threads(self) -> int:
        """This worker's share of its machine: threads that wait for each other are slow.

        At width 1, where a model of floats may run, as many as the sender would take: there the
        order of a sum may depend on them.
        """
        if self.width == 1:
            return self.sender_threads
        beside = self.neighbours.get(get_address_host(self.address), 1)
        return max(1, count_threads() // beside)


def run_piece(name: str, piece: Sequence[tuple[int, Request]]) -> None:
    """Run on a worker: what of the piece has not been told yet, and tell of each run.

    Of the last thousand runs, which the scheduler remembers. What the lab refuses is told too
    rather than raised: trying again would not help.
    """
    worker = get_worker()
    bench = worker.plugins[name]
    assert isinstance(bench, Bench)
    told = {message["place"] for message in _read_events(get_client(), name)}
    left = [(place, request) for place, request in piece if place not in told]
    try:
        for index, run in bench.run([request for _, request in left]):
            # As text: a text may hold what the messages' own format cannot.
            message = {"sweep": name, "place": left[index][0], "run": json.dumps(run.to_dict())}
            worker.log_event(TOPIC, message)
            worker.log_event(PLACES, {"sweep": name, "place": left[index][0]})
    except QwqlabError as error:
        refusal = {"sweep": name, "refused": str(error), "kind": type(error).__name__}
        worker.log_event(TOPIC, refusal)


def _read_events(client: Client, name: str) -> list[dict[str, Any]]:
    return [message for _, message in client.get_events(PLACES) if message["sweep"] == name]
