"""A grid of runs over the workers of a Dask cluster, into the same store as a local sweep.

No model travels: each worker opens its own file, whose hash must be the one that was sent, in an
engine that it keeps for the sweep. A worker tells of each run as it finishes. One that dies takes
with it only what it was writing: a piece of the grid that another takes over begins with what has
not been told.
"""

from __future__ import annotations

import json
import queue
import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from distributed import Client, Future, KilledWorker, Worker, get_client, get_worker
from distributed.comm import get_address_host
from distributed.diagnostics.plugin import WorkerPlugin

from . import paths, toolchain
from .engine import Engine
from .errors import ClusterError, QwqlabError, SettingError, first_lines
from .loading import count_threads
from .records import Request, Run
from .runs import RunStore
from .sweep import WIDTH, OnRun, Source, fill

# The scheduler keeps a topic's last thousand events; all sweeps share one, so that this is all.
TOPIC = "qwqlab-runs"
CONNECT_SECONDS = 10.0
PATIENCE = 30.0  # seconds without any worker after which a sweep gives up
RETRIES = 2  # times that a piece is tried again after an error, on whichever worker
PIECES = 4  # pieces of the grid for each worker, so that none waits long for the last one


def sweep_on(
    address: str,
    source: Source,
    requests: Sequence[Request],
    store: RunStore | None = None,
    experiment: str = "sweep",
    width: int = WIDTH,
    on_run: OnRun | None = None,
) -> list[Run]:
    """`sweep.sweep` on the cluster whose scheduler is at `address` ("tcp://127.0.0.1:8786").

    Each worker runs at most `width` sequences at once. The runs are those of a local sweep, token
    for token, where `Engine.width_independent` holds; where it does not, only width 1 is taken.
    A scheduler runs whatever Python it is sent: use one that only you and yours can reach.

    Raises ClusterError when no worker can be had, and what a worker raised when it cannot open the
    source. Finished runs are in the store then.
    """
    with _connect(address) as client:

        def run(missing: Sequence[Request]) -> Iterator[tuple[int, Run]]:
            return _run_pieces(client, source, missing, width) if missing else iter(())

        return fill(source, requests, run, store, experiment, on_run)


class Bench(WorkerPlugin):
    """A worker's engine, for one sweep: opened by its first piece, closed with the sweep."""

    def __init__(self, source: Source, width: int, neighbours: dict[str, int]) -> None:
        self.source, self.width, self.neighbours = source, width, neighbours
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
        """This worker's share of its machine: threads that wait for each other are slow."""
        beside = self.neighbours.get(get_address_host(self.address), 1)
        return max(1, count_threads() // beside)


def run_piece(name: str, piece: Sequence[tuple[int, Request]]) -> QwqlabError | None:
    """Run on a worker: what of the piece has not been told yet, and tell of each run.

    What the lab refuses is given back rather than raised: trying again would not help.
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
    except QwqlabError as error:
        return error
    return None


def cut_grid(n_runs: int, n_workers: int, width: int = WIDTH) -> int:
    """Runs of a piece: PIECES pieces a worker, but a batch is filled while there is one for each.

    >>> cut_grid(1000, 2), cut_grid(100, 2), cut_grid(100, 50)
    (125, 32, 2)
    """
    share = -(-n_runs // n_workers)
    return max(-(-n_runs // (PIECES * n_workers)), min(width, share))


def _run_pieces(
    client: Client, source: Source, requests: Sequence[Request], width: int
) -> Iterator[tuple[int, Run]]:
    workers = _await_workers(client)
    hosts = Counter(get_address_host(worker) for worker in workers)
    bench = Bench(source, width, dict(hosts))
    inbox: queue.Queue[Any] = queue.Queue()

    def hear(event: tuple[float, dict[str, Any]]) -> None:
        if event[1]["sweep"] == bench.name:
            inbox.put(event[1])

    client.subscribe_topic(TOPIC, hear)
    _set_up(client, bench)
    grid = list(enumerate(requests))
    size = cut_grid(len(grid), len(workers), width)
    pieces = [grid[start : start + size] for start in range(0, len(grid), size)]
    futures = [
        client.submit(run_piece, bench.name, piece, pure=False, retries=RETRIES) for piece in pieces
    ]
    try:
        for future in futures:
            future.add_done_callback(inbox.put)
        yield from _collect(client, inbox, len(futures), len(grid))
    finally:
        client.unsubscribe_topic(TOPIC)
        with suppress(Exception):  # a cluster that is gone has nothing left to clean up
            client.cancel(futures)
            client.unregister_worker_plugin(bench.name)


def _set_up(client: Client, bench: Bench) -> None:
    try:
        client.register_plugin(bench)
    except Exception as error:
        raise ClusterError(
            f"a worker could not be made ready ({first_lines(error)}); start every worker in an "
            "environment of this lab"
        ) from error


def _collect(
    client: Client, inbox: queue.Queue[Any], n_pieces: int, n_runs: int
) -> Iterator[tuple[int, Run]]:
    """Each run once, as it is told; until every piece is done."""
    places: set[int] = set()
    while n_pieces:
        try:
            item = inbox.get(timeout=PATIENCE)
        except queue.Empty:
            _await_workers(client)
            continue
        if isinstance(item, Future):
            _check_done(item)
            n_pieces -= 1
        elif item["place"] not in places:
            places.add(item["place"])
            yield item["place"], Run.from_dict(json.loads(item["run"]))
    if len(places) != n_runs:
        raise ClusterError(
            f"the cluster told of {len(places)} runs of {n_runs}; call again for the rest"
        )


def _check_done(future: Any) -> None:
    try:
        refused = future.result()
    except KilledWorker as error:
        raise ClusterError(
            "several workers died of the same runs, perhaps for lack of memory; finished runs are "
            "kept: give a smaller width, and call again"
        ) from error
    except Exception as error:
        raise ClusterError(
            f"the cluster gave up on some runs ({first_lines(error)}); finished runs are kept: "
            "call again"
        ) from error
    if refused is not None:
        raise refused


def _read_events(client: Client, name: str) -> list[dict[str, Any]]:
    return [message for _, message in client.get_events(TOPIC) if message["sweep"] == name]


@contextmanager
def _connect(address: str) -> Iterator[Client]:
    if not address:  # Dask would start a cluster of its own
        raise ClusterError("give the address of a scheduler, such as tcp://127.0.0.1:8786")
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise ClusterError(
            f"no scheduler answers at {address} ({first_lines(error)}); start one with `dask "
            "scheduler`, which prints its address"
        ) from error
    with client:
        yield client


def _await_workers(client: Client) -> list[str]:
    """The addresses of the workers there are, once there is one."""
    with suppress(TimeoutError):
        client.wait_for_workers(1, timeout=PATIENCE)
    workers = list(client.scheduler_info(n_workers=-1)["workers"])
    if not workers:
        raise ClusterError(
            "the cluster has no worker; finished runs are kept: start some with `dask worker "
            "ADDRESS --nthreads 1`, the address being the scheduler's, and call again"
        )
    return workers
