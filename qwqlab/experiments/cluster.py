"""A grid of runs over the workers of a Dask cluster, into the same store as a local sweep.

No model travels: each worker opens its own file, whose hash must be the one that was sent, in an
engine that it keeps for the sweep. A worker tells of each run as it finishes. One that dies takes
with it only what it was writing: a piece of the grid that another takes over begins with what has
not been told.
"""

from __future__ import annotations

import gc
import json
import queue
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from distributed import Client, Future, KilledWorker
from distributed import TimeoutError as DaskTimeoutError  # on Python 3.10 not the builtin
from distributed.comm import get_address_host

from ..errors import ClusterError, QwqlabError, first_lines
from ..records import Request, Run
from .cluster_worker import TOPIC, Bench, run_piece
from .store import RunStore
from .sweeps import WIDTH, OnRun, Source, fill

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
    """Each run once, as it is told; until every piece is done, or one has failed."""
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
            f"the cluster told of {len(places)} runs of {n_runs}; call again for the rest"
        )


_KINDS = {kind.__name__: kind for kind in QwqlabError.__subclasses__()}


def _explain_failure(future: Any) -> ClusterError | None:
    """Why a piece was given up, or None if it is done. Its result, which lies on a worker, is not
    asked for."""
    if future.status == "finished":
        return None
    error = future.exception(timeout=CONNECT_SECONDS) if future.status == "error" else None
    if isinstance(error, KilledWorker):
        return ClusterError(
            "several workers died of the same runs, perhaps for lack of memory; finished runs are "
            "kept: give a smaller width, or start the workers with --memory-limit 0, and call again"
        )
    reason = first_lines(error) if error else f"it is {future.status}"
    return ClusterError(
        f"the cluster gave up on some runs ({reason}); finished runs are kept: call again"
    )


@contextmanager
def _connect(address: str) -> Iterator[Client]:
    if not address:  # Dask would start a cluster of its own
        raise ClusterError("give the address of a scheduler, such as tcp://127.0.0.1:8786")
    client, failure = None, ""
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        failure = first_lines(error)
    if client is None:
        # What is left of the client that failed goes now: collected while the next one is made, it
        # would wait for a lock of Dask's that its own thread holds.
        gc.collect()
        raise ClusterError(
            f"no scheduler answers at {address} ({failure}); start one with `dask scheduler`, "
            "which prints its address"
        )
    with client:
        yield client


def _await_workers(client: Client) -> list[str]:
    """The addresses of the workers that run, once there is one."""
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
