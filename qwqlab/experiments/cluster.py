"""A grid of runs over the workers of a Dask cluster, into the same store as a local sweep.

No model travels: each worker opens its own file, whose hash must be the one that was sent, in an
engine that it keeps for the sweep (`Bench`). A worker publishes each run as it finishes, as an
event that the scheduler passes on and remembers. So a worker that dies loses only what it was
writing: its piece of the grid begins again elsewhere, with the runs that were not published yet.

Whoever reaches a scheduler can run code as its owner, on every worker. So `start_cluster` and
`write_keys` let in those alone who have the keys, by Dask's own TLS.
"""

from __future__ import annotations

import gc
import json
import os
import queue
import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
from distributed import Client, Future, KilledWorker, LocalCluster, Worker, get_client, get_worker
from distributed import TimeoutError as DaskTimeoutError  # on Python 3.10 not the builtin
from distributed.comm import get_address_host
from distributed.deploy import Cluster
from distributed.diagnostics.plugin import WorkerPlugin
from distributed.security import Security

from .. import files, paths
from ..errors import ClusterError, QwqlabError, SettingError, first_lines
from ..llamacpp import count_threads, describe_build
from ..sampling import Engine, Request, Run
from .store import RunStore
from .sweeps import WIDTH, OnRun, Source, fill

CONNECT_SECONDS = 10.0
PATIENCE = 30.0  # seconds without any worker after which a sweep gives up
RETRIES = 2  # times that a piece is tried again after an error, on whichever worker
PIECES = 4  # pieces of the grid for each worker, so that none waits long for the last one
# The scheduler keeps a topic's last thousand events; all sweeps share these, so that this is all.
TOPIC = "qwqlab-runs"
PLACES = "qwqlab-places"  # of the same runs, their places in the grid alone
_SERVERS = ("scheduler", "worker")
_NO_PAGES: dict[str, list[str]] = {"routes": []}  # over HTTP, where Dask shows anyone its logs


def start_cluster(n_workers: int) -> LocalCluster:
    """Start a scheduler and workers on this machine, for this process alone; `close` ends them.

    Each worker is a process of its own. Their keys are made anew, and stay in memory.
    """
    # A worker is started as `python -c`, which would look into the current folder first. (Python
    # 3.10 does not know this; a worker that dies is started again, so it stays set.)
    os.environ["PYTHONSAFEPATH"] = "1"
    with dask.config.set({f"distributed.{role}.http": _NO_PAGES for role in _SERVERS}):
        return LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            memory_limit=None,
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},  # 8787 may be another's
            security=Security.temporary(),
        )


def write_keys(path: str | Path) -> Path:
    """Write the keys of a cluster of several machines, and return the path.

    `DASK_CONFIG=path` gives them to a scheduler, a worker or a client; then a tls:// address lets
    in those alone who have the file. It is a secret: whoever has it can run code on each machine.
    """
    keys = Security.temporary()
    tls: dict[str, Any] = {"ca-file": keys.tls_ca_file}
    for role in (*_SERVERS, "client"):
        tls[role] = {part: getattr(keys, f"tls_{role}_{part}") for part in ("cert", "key")}
    pages = {role: {"http": _NO_PAGES} for role in _SERVERS}
    values = {"distributed": {"comm": {"require-encryption": True, "tls": tls}, **pages}}
    with files.replacing(Path(path)) as part:
        part.touch(mode=0o600)
        part.write_text(json.dumps(values, indent=1), encoding="utf-8")
    return Path(path)


def sweep_on(
    cluster: str | Cluster,
    source: Source,
    requests: Sequence[Request],
    store: RunStore | None = None,
    experiment: str = "sweep",
    width: int = WIDTH,
    on_run: OnRun | None = None,
) -> list[Run]:
    """Do `sweep` on a cluster: one of `start_cluster`, or a scheduler's address.

    For an address such as "tls://192.168.0.10:8786" Dask's configuration has the keys (see
    `write_keys`). Each worker runs at most `width` sequences at once. The runs are those of a local
    sweep, token for token, if `Engine.width_independent` holds; if not, only width 1 is allowed.

    Raise ClusterError if there is no worker, and what a worker raises if it can't open the source.
    Finished runs are in the store then.
    """
    with _connect(cluster) as client:

        def run(missing: Sequence[Request]) -> Iterator[tuple[int, Run]]:
            return _run_pieces(client, source, missing, width) if missing else iter(())

        return fill(source, requests, run, store, experiment, on_run)


def cut_grid(n_runs: int, n_workers: int, width: int = WIDTH) -> int:
    """Return how many runs a piece has: PIECES pieces a worker, but full batches come first.

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

    futures: list[Any] = []
    try:
        client.subscribe_topic(TOPIC, hear)
        _set_up(client, bench)
        grid = list(enumerate(requests))
        size = cut_grid(len(grid), len(workers), width)
        for start in range(0, len(grid), size):
            piece = grid[start : start + size]
            future = client.submit(run_piece, bench.name, piece, pure=False, retries=RETRIES)
            futures.append(future)
            future.add_done_callback(inbox.put)
        yield from _collect(client, inbox, len(futures), len(grid))
    finally:
        with suppress(Exception):  # a cluster that is gone has nothing left to clean up
            client.cancel(futures)
            client.unregister_worker_plugin(bench.name)
            client.unsubscribe_topic(TOPIC)


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
    """Yield each run once, as it is published, until every piece is done or one has failed."""
    places: set[int] = set()
    failure: QwqlabError | None = None
    while n_pieces and not (failure and inbox.empty()):
        try:
            item = inbox.get(timeout=PATIENCE)
        except queue.Empty:
            _await_workers(client)
            continue
        if isinstance(item, Future):
            failure = failure or _explain_failure(item)
            n_pieces -= 1
        elif "refused" in item:
            failure = failure or _KINDS.get(item["kind"], ClusterError)(item["refused"])
        elif item["place"] not in places:
            places.add(item["place"])
            yield item["place"], Run.from_dict(json.loads(item["run"]))
    if failure:
        raise failure
    if len(places) != n_runs:
        raise ClusterError(
            f"the cluster finished {len(places)} runs of {n_runs}; call again for the rest"
        )


_KINDS = {kind.__name__: kind for kind in QwqlabError.__subclasses__()}


def _explain_failure(future: Any) -> ClusterError | None:
    """Return why a piece was given up, or None if it is done."""
    # "lost": it was finished, on a worker that has died since; its runs were told before.
    if future.status in ("finished", "lost"):
        return None
    error = future.exception(timeout=CONNECT_SECONDS) if future.status == "error" else None
    if isinstance(error, KilledWorker):
        return ClusterError(
            "several workers died of the same runs, perhaps out of memory; finished runs are "
            "kept: give a smaller width, or start the workers with --memory-limit 0, and call again"
        )
    reason = first_lines(error) if error else f"it is {future.status}"
    return ClusterError(
        f"the cluster gave up on some runs ({reason}); finished runs are kept: call again"
    )


@contextmanager
def _connect(cluster: str | Cluster) -> Iterator[Client]:
    if not cluster:  # Dask would start a cluster of its own
        raise ClusterError("give the address of a scheduler, such as tls://192.168.0.10:8786")
    client, failure = None, ""
    try:
        client = Client(cluster, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        failure = first_lines(error)
    if client is None:
        # Collect the failed client now: collected while the next one is made, it would wait for a
        # lock of Dask's that its own thread holds.
        gc.collect()
        raise ClusterError(
            f"no scheduler answers at {getattr(cluster, 'scheduler_address', cluster)} "
            f"({failure}); start one with `dask scheduler`, which prints its address; for one at "
            "tls:// set DASK_CONFIG to the file of its keys"
        )
    with client:
        yield client


def _await_workers(client: Client) -> list[str]:
    """Return the addresses of the workers that run, once there is one."""
    try:
        with suppress(TimeoutError, DaskTimeoutError):
            client.wait_for_workers(1, timeout=PATIENCE)
        workers = client.scheduler_info(n_workers=-1)["workers"]
    except (OSError, AttributeError) as error:
        raise ClusterError(
            "the scheduler is gone; finished runs are kept: start it again, and call again"
        ) from error
    running = [address for address, each in workers.items() if each["status"] == "running"]
    if workers and not running:
        raise ClusterError(
            "all workers are paused, which Dask does where memory is short by its own count; "
            "finished runs are kept: start them with --memory-limit 0, and call again"
        )
    if not running:
        raise ClusterError(
            "the cluster has no worker; finished runs are kept: start some with `dask worker "
            "ADDRESS --nthreads 1 --memory-limit 0`, the address being the scheduler's, and call "
            "again"
        )
    return running


# What runs on a worker


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
        """Called by Dask when the sweep or the worker ends: end what still runs."""
        self._over = True
        if self._engine is not None:
            self._engine.close()

    def run(self, requests: Sequence[Request]) -> Iterator[tuple[int, Run]]:
        """Yield as Engine.run does; a second piece on this worker waits for the first."""
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
        build = describe_build()
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
                "experiments.LOADING does"
            )

    def _find(self, path: str) -> str:
        """Return the sender's path, or the file of that name in this worker's own models."""
        places = (Path(path), paths.models_dir() / Path(path).name)
        for place in places:
            if place.is_file():
                return str(place)
        raise ClusterError(
            f"worker {self.address} has neither {places[0]} nor {places[1]}; copy the file there"
        )

    def _count_threads(self) -> int:
        """Return this worker's share of its machine's threads: too many wait for each other.

        At width 1, where a model of floats may run, return as many as the sender would take: there
        the order of a sum may depend on them.
        """
        if self.width == 1:
            return self.sender_threads
        beside = self.neighbours.get(get_address_host(self.address), 1)
        return max(1, count_threads() // beside)


def run_piece(name: str, piece: Sequence[tuple[int, Request]]) -> None:
    """Run on a worker the runs of a piece that were not published yet, and publish each.

    The scheduler remembers the last thousand. An error of the lab's own is published too rather
    than raised: trying again would not help.
    """
    worker = get_worker()
    bench = worker.plugins[name]
    assert isinstance(bench, Bench)
    events = [message for _, message in get_client().get_events(PLACES)]
    published = {message["place"] for message in events if message["sweep"] == name}
    left = [(place, request) for place, request in piece if place not in published]
    try:
        for index, run in bench.run([request for _, request in left]):
            # As text: a text may hold what the messages' own format cannot.
            message = {"sweep": name, "place": left[index][0], "run": json.dumps(run.to_dict())}
            worker.log_event(TOPIC, message)
            worker.log_event(PLACES, {"sweep": name, "place": left[index][0]})
    except QwqlabError as error:
        refusal = {"sweep": name, "refused": str(error), "kind": type(error).__name__}
        worker.log_event(TOPIC, refusal)
