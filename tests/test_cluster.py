"""A sweep over a cluster: a scheduler and two workers, started as the notebook says."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import queue
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cloudpickle
import dask
import psutil
import pytest
from distributed import Client
from distributed.comm import connect
from distributed.security import Security

from qwqlab import cli, paths
from qwqlab.errors import ClusterError, ContextError, SettingError
from qwqlab.experiments import (
    LOADING,
    PLACES,
    Grid,
    Part,
    RunStore,
    Source,
    cluster,
    cut_grid,
    list_arms,
    penalty_and_order,
    plan_requests,
    start_cluster,
    sweep,
    sweep_on,
    write_keys,
)
from qwqlab.experiments.cluster import Bench
from qwqlab.llamacpp import Loading, count_threads
from qwqlab.models import requantize, sweep_copy
from qwqlab.sampling import Engine, Request, Run

N_PREDICT = 12

# What the tests run on a worker goes there whole: a worker can't import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Room:
    """A scheduler and its workers, each a process of its own with nobody to start it anew."""

    def __init__(self, folder: Path, n_workers: int) -> None:
        self.folder, self.processes = folder, list[subprocess.Popen[bytes]]()
        self.file = folder / "scheduler.json"
        self._start("dask_scheduler", "--host", "tls://127.0.0.1", "--port", "0", "--no-dashboard")
        for _ in range(n_workers):
            self.add_worker()
        self.client = Client(scheduler_file=str(self.file), timeout=60, set_as_default=False)
        if n_workers:
            self.client.wait_for_workers(n_workers, timeout=60)
        self.address = str(json.loads(self.file.read_text())["address"])

    def add_worker(self) -> None:
        self._start("dask_worker", "--nthreads", "1", "--no-nanny", "--no-dashboard")

    def kill_a_worker(self) -> None:
        """The way of a machine that is switched off, here one that has finished a piece."""
        while not (busy := [each for each, has in self.client.has_what().items() if has]):
            time.sleep(0.05)
        os.kill(self.client.run(os.getpid)[busy[0]], signal.SIGKILL)
        while self.count_workers() > 1:
            time.sleep(0.05)

    def count_workers(self) -> int:
        return len(self.client.scheduler_info(n_workers=-1)["workers"])

    def count_plugins(self) -> list[int]:
        return list(self.client.run(_count_benches).values())

    def await_idle(self) -> bool:
        """Whether the workers end what they do within some seconds."""
        for _ in range(100):
            if not any(self.client.run(_count_tasks).values()):
                return True
            time.sleep(0.1)
        return False

    def close(self) -> None:
        self.client.close()
        for process in self.processes:
            process.kill()
            process.wait()

    def _start(self, name: str, *flags: str) -> None:
        script = f"from distributed.cli.{name} import main; main()"
        command = [sys.executable, "-c", script, "--scheduler-file", str(self.file), *flags]
        with (self.folder / "log").open("ab") as log:
            self.processes.append(
                subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
            )


def _list_plugins(dask_scheduler: Any) -> list[str]:
    return list(dask_scheduler.worker_plugins)


def _count_tasks(dask_worker: Any) -> int:
    return len(dask_worker.state.executing)


def _count_benches(dask_worker: Any) -> int:
    return sum(name.startswith("qwqlab") for name in dask_worker.plugins)


@pytest.fixture(scope="module", autouse=True)
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The keys of every scheduler, worker and client here."""
    keys = write_keys(tmp_path_factory.mktemp("keys") / "room.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DASK_CONFIG", str(keys))
        dask.config.refresh(paths=[str(keys)])  # Dask reads it when it is imported
        yield keys
    dask.config.refresh()


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    room = Room(tmp_path_factory.mktemp("room"), 2)
    yield room
    room.close()


@pytest.fixture(scope="module")
def source(model_path: Path) -> Source:
    return Source.of(str(sweep_copy(model_path)), LOADING)


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    return plan_requests(Grid(Part(1, 1, N_PREDICT), Part(1, 1, N_PREDICT)))


@pytest.fixture(scope="module")
def tokens(source: Source, requests: list[Request]) -> list[tuple[int, ...]]:
    """What a local sweep gives."""
    with Engine(source.path, LOADING) as engine:
        return [run.tokens for run in sweep(engine, requests, width=8)]


def test_a_cluster_gives_what_one_engine_gives_and_keeps_it_alike(
    room: Room,
    source: Source,
    requests: list[Request],
    tokens: list[tuple[int, ...]],
    tmp_path: Path,
) -> None:
    with RunStore(tmp_path / "runs.sqlite") as store:
        ran = []
        runs = sweep_on(
            room.address, source, requests, store, width=8, on_run=lambda *e: ran.append(e)
        )
        assert [run.tokens for run in runs] == tokens
        assert [run.request for run in runs] == requests
        assert [done for done, _, _ in ran] == list(range(1, len(requests) + 1))
        with Engine(source.path, LOADING) as engine:
            again = sweep(engine, requests, store, on_run=lambda *_: pytest.fail("run anew"))
        assert again == runs
        # and the other way round: a cluster finds what one engine has kept
        assert (
            sweep_on(
                room.address, source, requests, store, on_run=lambda *_: pytest.fail("run anew")
            )
            == runs
        )
        assert next(iter(store.runs())).settings == LOADING.to_dict()
    assert room.count_plugins() == [0, 0]


def test_the_death_of_a_worker_costs_no_finished_run(
    source: Source, requests: list[Request], tokens: list[tuple[int, ...]], tmp_path: Path
) -> None:
    room = Room(tmp_path, 2)
    ran: list[int] = []

    def kill_once(done: int, total: int, run: object) -> None:
        ran.append(done)
        if done == 3:
            room.kill_a_worker()

    try:
        with RunStore(tmp_path / "runs.sqlite") as store:
            runs = sweep_on(room.address, source, requests, store, width=2, on_run=kill_once)
            assert [run.tokens for run in runs] == tokens
            assert len(list(store.runs())) == len(requests)
        told = [message["place"] for _, message in room.client.get_events(PLACES)]
        assert sorted(told) == list(range(len(requests)))  # none was run a second time
        assert room.count_workers() == 1
    finally:
        room.close()


def test_a_sweep_that_is_interrupted_ends_on_the_workers_too_and_goes_on(
    room: Room,
    source: Source,
    requests: list[Request],
    tokens: list[tuple[int, ...]],
    tmp_path: Path,
) -> None:
    long = [replace(request, n_predict=1000) for request in requests]

    def interrupt(done: int, total: int, run: Run) -> None:
        if run.request.n_predict == N_PREDICT:
            raise KeyboardInterrupt

    with RunStore(tmp_path / "runs.sqlite") as store:
        mixed = [*requests[:2], *long]
        with pytest.raises(KeyboardInterrupt):
            sweep_on(room.address, source, mixed, store, width=2, on_run=interrupt)
        assert room.count_plugins() == [0, 0]
        assert room.await_idle()  # long before a thousand tokens are written
        kept = len(list(store.runs()))
        assert 1 <= kept < len(mixed)
        ran = []
        runs = sweep_on(
            room.address, source, requests, store, width=8, on_run=lambda *e: ran.append(e)
        )
        assert [run.tokens for run in runs] == tokens
        assert len(requests) - kept <= len(ran) < len(requests)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_sha256": "0" * 64}, "is another file than the sweep's: its sha256 is"),
        ({"build": "llama.cpp 1"}, "was begun with llama.cpp 1; give both the same build"),
        ({"path": "/nowhere/no-such.gguf"}, "has neither /nowhere/no-such.gguf nor "),
    ],
)
def test_a_worker_that_has_something_else_says_so(
    room: Room, source: Source, requests: list[Request], change: dict[str, Any], says: str
) -> None:
    # The places here are the workers' too, so the difference is put into what is sent.
    grid = requests[:2]
    with pytest.raises(ClusterError, match=says) as caught:
        list(cluster._run_pieces(room.client, replace(source, **change), grid, 2))
    assert "worker tls://" in str(caught.value)
    assert room.count_plugins() == [0, 0]


def test_a_model_whose_runs_depend_on_the_batch_is_taken_one_by_one(
    room: Room, model_path: Path, requests: list[Request], tmp_path: Path
) -> None:
    loading = Loading(flash_attn="off")
    source = Source.of(str(requantize(model_path, "F16")), loading)
    with pytest.raises(SettingError, match=r"width=4: what .* depends on what is beside it"):
        sweep_on(room.address, source, requests[:4], width=4)
    with Engine(source.path, loading) as engine:
        alone = sweep(engine, requests[:2], width=1)
    runs = sweep_on(room.address, source, requests[:2], width=1)
    assert [run.tokens for run in runs] == [run.tokens for run in alone]


def knock(address: str, keys: Security) -> None:
    """Connect to a scheduler or a worker; OSError if it lets nobody in."""

    async def try_it() -> None:
        comm = await connect(address, timeout=5, **keys.get_connection_args("client"))
        comm.abort()

    asyncio.run(try_it())


def find_listeners() -> set[str]:
    """Addresses at which this process and those that it started listen."""
    own = psutil.Process()
    connections = [
        each
        for process in (own, *own.children(recursive=True))
        for each in process.net_connections("tcp")
    ]
    return {f"{c.laddr.ip}:{c.laddr.port}" for c in connections if c.status == "LISTEN"}


def test_a_cluster_of_ones_own_lets_in_nobody_else(
    source: Source, requests: list[Request], tokens: list[tuple[int, ...]]
) -> None:
    before = find_listeners()
    with start_cluster(1) as cluster:
        runs = sweep_on(cluster, source, requests[:2])
        assert [run.tokens for run in runs] == tokens[:2]
        listeners = find_listeners() - before
        assert len(listeners) >= 3  # of the scheduler, the worker and its nanny
        pages = 0
        for place in listeners:
            assert place.startswith("127.0.0.1:")
            with pytest.raises((OSError, http.client.HTTPException)) as caught:
                urllib.request.urlopen(f"http://{place}/info/main/workers.html", timeout=5)
            if isinstance(caught.value, urllib.error.HTTPError):
                assert caught.value.code == 404
                pages += 1  # a server of pages, which has none
                continue
            for address, keys in (
                (f"tcp://{place}", Security(require_encryption=False)),
                (f"tls://{place}", Security.temporary()),
            ):
                with pytest.raises(OSError):
                    knock(address, keys)
        assert pages <= 2


def test_a_room_lets_in_those_alone_who_have_its_keys(room: Room, keys: Path) -> None:
    assert room.address.startswith("tls://")
    assert keys.stat().st_mode & 0o777 == 0o600
    for address, others in (
        (room.address.replace("tls", "tcp"), Security(require_encryption=False)),
        (room.address, Security.temporary()),
    ):
        with pytest.raises(OSError):
            knock(address, others)
    knock(room.address, Security())  # whose keys are those of DASK_CONFIG


def test_a_scheduler_that_does_not_answer(
    source: Source, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.5)
    with pytest.raises(ClusterError, match=r"no scheduler answers at tcp://127.0.0.1:9 "):
        sweep_on("tcp://127.0.0.1:9", source, requests)
    with pytest.raises(ClusterError, match=r"no scheduler answers at tls://127.0.0.1:9 "):
        sweep_on("tls://127.0.0.1:9", source, requests)
    with pytest.raises(ClusterError, match=r"no scheduler answers at gopher://x"):
        sweep_on("gopher://x", source, requests)
    with pytest.raises(ClusterError, match="give the address of a scheduler"):
        sweep_on("", source, requests)


@pytest.mark.nightly  # a cluster of its own
def test_a_worker_without_the_lab_is_named(
    source: Source, requests: list[Request], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "qwqlab"
    empty.mkdir()
    (empty / "__init__.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # it stands before the lab's own
    room = Room(tmp_path, 1)
    try:
        with pytest.raises(ClusterError, match=r"could not be made ready .*in an environment of"):
            sweep_on(room.address, source, requests[:2])
        # Nothing of the sweep is left for a worker that comes later.
        left = room.client.run_on_scheduler(_list_plugins)
        assert not [name for name in left if name.startswith("qwqlab")]
    finally:
        room.close()


def test_workers_of_one_machine_share_its_threads(source: Source) -> None:
    bench = Bench(source, 8, {"10.0.0.1": 2, "10.0.0.2": 1})
    for host, n_workers in (("10.0.0.1", 2), ("10.0.0.2", 1), ("10.0.0.3", 1)):
        bench.setup(cast(Any, SimpleNamespace(address=f"tcp://{host}:4000")))
        assert bench._count_threads() == max(1, count_threads() // n_workers)
    # Alone in its batch a model of floats may run, whose sums may depend on the threads.
    alone = Bench(source, 1, {"10.0.0.1": 2})
    alone.setup(cast(Any, SimpleNamespace(address="tcp://10.0.0.1:4000")))
    assert alone._count_threads() == source.loading.threads()


def test_missing_workers_and_those_paused_for_memory_are_named(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room.client, "scheduler_info", lambda **_: {"workers": {}})
    with pytest.raises(ClusterError, match="has no worker; finished runs are kept"):
        cluster._await_workers(room.client)
    paused = {"workers": {"tcp://127.0.0.1:1": {"status": "paused"}}}
    monkeypatch.setattr(room.client, "scheduler_info", lambda **_: paused)
    with pytest.raises(ClusterError, match=r"all workers are paused.* --memory-limit 0"):
        cluster._await_workers(room.client)


def test_a_refusal_loses_no_run_that_was_told_before_it(
    requests: list[Request], tokens: list[tuple[int, ...]]
) -> None:
    run = Run(requests[0], 1, tokens[0], "a", "length", (0,) * N_PREDICT, (), 0.1)
    inbox: queue.Queue[Any] = queue.Queue()
    inbox.put({"refused": "no room", "kind": "ContextError"})
    inbox.put({"place": 3, "run": json.dumps(run.to_dict())})
    found = []
    with pytest.raises(ContextError, match="no room"):
        for each in cluster._collect(cast(Any, None), inbox, 1, 5):
            found.append(each)
    assert found == [(3, run)]


@pytest.mark.parametrize(("n_runs", "n_workers"), [(1, 1), (7, 2), (560, 2), (560, 100)])
def test_pieces_fill_a_batch_where_there_is_enough_for_all(n_runs: int, n_workers: int) -> None:
    size = cut_grid(n_runs, n_workers)
    n_pieces = -(-n_runs // size)
    assert n_pieces >= min(n_runs, n_workers) / 2
    assert size <= max(32, -(-n_runs // cluster.PIECES // n_workers) + 1)


def test_the_experiment_by_the_command_line(
    room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(penalty_and_order, "QUICK", Grid(Part(1, 1, 6), Part(1, 1, 6)))
    monkeypatch.setattr(paths, "runs_dir", lambda: tmp_path)
    out, store = str(tmp_path / "counts.json"), str(tmp_path / "runs.sqlite")
    command = ["reproduce", "--quick", "--json", out, "--store", store, "--dask", room.address]
    assert cli.main(command) == 0
    counts = json.loads(Path(out).read_text())
    assert [arm["name"] for arm in counts["arms"]] == list(list_arms())
    assert counts["runs_generated_tokens"] > 0
    capsys.readouterr()
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.5)
    assert cli.main(["reproduce", "--quick", "--dask", "tcp://127.0.0.1:9"]) == 1
    assert "no scheduler answers at tcp://127.0.0.1:9" in capsys.readouterr().err
