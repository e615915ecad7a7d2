"""A device that is not the CPU. A ggml-rpc-server on this machine takes the part of a GPU."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from qwqlab import paths
from qwqlab.errors import SettingError, ToolchainError
from qwqlab.experiments import LOADING
from qwqlab.llamacpp import RpcServer, has_gpu, list_devices, serve_rpc, tools
from qwqlab.models import EMBEDDED, share_layers
from qwqlab.sampling import PRESETS, Command, Engine, Request, Sampling, command_of, complete
from qwqlab.sampling.engine import count_layers


@pytest.fixture(scope="module")
def server() -> Iterator[RpcServer]:
    with serve_rpc() as server:
        yield server


def run_with_device(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, whose llama.cpp knows the device."""
    environment = {**os.environ, tools.STAND_IN: "rpc"}
    command = [sys.executable, "-c", code, *args]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_build_that_could_use_a_device_has_none_here_by_itself() -> None:
    devices = list_devices()
    assert has_gpu() == bool(devices)
    if tools.STAND_IN not in os.environ:
        assert "RPC" not in " ".join(each.name for each in devices)


def test_where_there_is_a_device_exactness_is_what_one_asks_for(
    engine: Engine, code_prompt: str
) -> None:
    run = engine.generate(code_prompt, PRESETS["official"], seed=3, n_predict=12)
    code = (
        "import json, sys\n"
        "from dataclasses import replace\n"
        "from qwqlab.experiments import LOADING\n"
        "from qwqlab.llamacpp import list_devices\n"
        "from qwqlab.llamacpp.model import log\n"
        "from qwqlab.sampling import PRESETS, Engine\n"
        "found = {'device': list_devices()[0].name}\n"
        "for name, loading in (('card', replace(LOADING, device='')), ('exact', LOADING)):\n"
        "    with Engine(sys.argv[1], loading) as engine:\n"
        "        said = ''.join(log)\n"
        "        tokens = engine.generate(sys.argv[2], PRESETS['official'], 3, 12).tokens\n"
        "        layers = 'RPC0' in said\n"
        "        found[name] = engine.width_independent, layers, tokens\n"
        "print(json.dumps(found))\n"
    )
    done = run_with_device(code, engine.path, code_prompt)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["device"] == "RPC0"
    assert found["card"][:2] == [False, True]
    independent, offloaded, tokens = found["exact"]
    with Engine(engine.path, LOADING) as exact:
        own = exact.generate(code_prompt, PRESETS["official"], seed=3, n_predict=12)
        assert (independent, offloaded) == (exact.width_independent, False)
    assert tuple(tokens) == own.tokens
    assert len(found["card"][2]) == len(run.tokens)


def test_two_servers_write_what_one_machine_writes(
    server: RpcServer, engine: Engine, code_prompt: str
) -> None:
    request = Request(code_prompt, PRESETS["official"], 11, 24)
    command = command_of(request, engine)
    with serve_rpc() as second:
        assert complete(command, [server.address, second.address]) == complete(command)


def test_a_server_that_dies_costs_the_run_and_not_this_process(
    engine: Engine, code_prompt: str
) -> None:
    endless = Sampling(ignore_eos=True)
    command = command_of(Request(code_prompt, endless, 1, 4000), engine)
    with serve_rpc() as server:
        timer = threading.Timer(2.0, os.kill, (server.pid, signal.SIGKILL))
        timer.start()
        with pytest.raises(ToolchainError) as caught:
            complete(command, [server.address])
        timer.cancel()
    assert "\n" not in str(caught.value)
    assert server.address in str(caught.value)


def test_no_server_outlives_a_process_that_is_interrupted_and_killed() -> None:
    code = (
        "import signal\n"
        "from qwqlab.llamacpp import serve_rpc\n"
        "with serve_rpc() as server:\n"
        "    signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "    print(server.pid, flush=True)\n"
        "    input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as holder:
        assert holder.stdout is not None
        server = int(holder.stdout.readline())
        os.killpg(holder.pid, signal.SIGINT)  # as Jupyter interrupts a kernel
        time.sleep(0.5)
        holder.kill()
    with contextlib.suppress(psutil.NoSuchProcess):
        left = psutil.Process(server)
        for _ in range(600):
            if left.status() == psutil.STATUS_ZOMBIE:
                return
            time.sleep(0.1)
        pytest.fail("the server is still there")


@pytest.mark.parametrize("servers", ["10.0.0.1:50052", ["10.0.0.1"], [50052], ["a:1,b:2"]])
def test_what_is_no_list_of_addresses_is_told(servers: Any) -> None:
    with pytest.raises(SettingError, match="a list of addresses, each with its port"):
        complete(Command(), servers)


def test_only_as_many_layers_go_to_a_card_as_fit_there(engine: Engine) -> None:
    found = [count_layers(engine.info, 256, free) for free in (0, 1 << 30, 1170 << 20)]
    assert found[:2] == [0, 0]  # llama.cpp's margin stays free
    assert 0 < found[2] < 30
    assert count_layers(engine.info, 256, 1400 << 20) == -1
    assert 0 < count_layers(engine.info, 8192, 1300 << 20) < 30  # a cache takes room
    code = (
        "import sys\n"
        "from types import SimpleNamespace\n"
        "from qwqlab.llamacpp.model import log\n"
        "from qwqlab.sampling import engine\n"
        "engine.list_devices = lambda: [SimpleNamespace(free=1300 << 20)]\n"
        "with engine.Engine(sys.argv[1]):\n"
        "    print(''.join(log))\n"
    )
    said = run_with_device(code, engine.path).stdout
    n_there = count_layers(engine.info, 8192, 1300 << 20)
    assert f"offloaded {n_there}/31 layers" in said, said[-2000:]


def test_the_lab_knows_what_each_machine_holds(
    server: RpcServer, engine: Engine, code_prompt: str
) -> None:
    command = command_of(Request(code_prompt, PRESETS["official"], 1, 1), engine)
    with serve_rpc() as second:
        servers = f"{server.address},{second.address}"
        words = [*command.argv(), "--rpc", servers, "-lv", "4"]
        said = tools.run_tool("llama-completion", words).stderr
    found = dict(re.findall(r"RPC0\[(\S+)\] KV buffer size = +([\d.]+) MiB", said))
    sizes = [float(found[address]) for address in servers.split(",")]
    layers = [round(30 * size / sum(sizes)) for size in sizes]
    shares = share_layers(EMBEDDED, 8192, [1, 1])
    assert [share.n_layers for share in shares] == [layers[0], layers[1] + 1]  # and the head


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["engine", "loading", "probe", "sweep", "cluster"])
def test_the_tests_of_what_runs_a_model_pass_with_a_device(name: str) -> None:
    path = paths.CHECKOUT / "tests" / f"test_{name}.py"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not nightly", str(path)]
    environment = {**os.environ, tools.STAND_IN: "rpc", "LLAMA_ARG_THREADS": "1"}  # as the server
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
