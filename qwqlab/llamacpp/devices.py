"""What llama.cpp can compute on besides the CPU: graphics cards, as the build knows them.

A `ggml-rpc-server` is such a device too. With QWQLAB_DEVICE=rpc each process that loads llama.cpp
starts one for itself, and so takes every path that it would take with a graphics card.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..errors import ToolchainError
from .tools import STAND_IN, SUFFIX, library_dir, tool

_GPU, _INTEGRATED_GPU = 1, 2  # ggml_backend_dev_type
_START_SECONDS = 30.0
# A shell that ends its program when this process ends in whatever way, and so closes the pipe. It
# first says the program's number.
_GUARD = '"$0" "$@" >/dev/null 2>&1 </dev/null & echo $!; read -r _; kill -9 $! 2>/dev/null'


@dataclass(frozen=True)
class Device:
    """A device with its memory in bytes: what is free now, and all of it.

    name is llama.cpp's, such as "CUDA0"; description such as "NVIDIA H100 80GB HBM3".
    """

    name: str
    description: str
    free: int
    total: int


def list_devices() -> tuple[Device, ...]:
    """Return the devices on which llama.cpp computes besides the CPU, in its own order.

    Raise ToolchainError if there is no llama.cpp.
    """
    library = _library()
    found = []
    for place in range(library.ggml_backend_dev_count()):
        device = library.ggml_backend_dev_get(place)
        if library.ggml_backend_dev_type(device) in (_GPU, _INTEGRATED_GPU):
            free, total = ctypes.c_size_t(), ctypes.c_size_t()
            library.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
            name, description = (
                ask(device).decode("utf-8", "replace")
                for ask in (library.ggml_backend_dev_name, library.ggml_backend_dev_description)
            )
            found.append(Device(name, description, free.value, total.value))
    return tuple(found)


def has_gpu() -> bool:
    """Return whether there is such a device."""
    return bool(list_devices())


@lru_cache(maxsize=1)
def _library() -> Any:
    """Return ggml's library, with the stand-in registered if one is named."""
    library = ctypes.CDLL(str(library_dir() / f"libggml{SUFFIX}"))
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    for name, result, *arguments in (
        ("reg_count", ctypes.c_size_t),
        ("dev_count", ctypes.c_size_t),
        ("dev_get", pointer, ctypes.c_size_t),
        ("dev_type", ctypes.c_int, pointer),
        ("dev_name", text, pointer),
        ("dev_description", text, pointer),
        ("dev_memory", None, pointer, *[ctypes.POINTER(ctypes.c_size_t)] * 2),
        ("register", None, pointer),
    ):
        function = getattr(library, f"ggml_backend_{name}")
        function.restype, function.argtypes = result, arguments
    if not library.ggml_backend_reg_count():  # a build whose backends are files of their own
        library.ggml_backend_load_all()
    if os.environ.get(STAND_IN) == "rpc":
        own = ExitStack()
        atexit.register(own.close)
        address = own.enter_context(serve_rpc()).address
        rpc = ctypes.CDLL(str(library_dir() / f"libggml-rpc{SUFFIX}"))
        rpc.ggml_backend_rpc_add_server.restype = pointer
        rpc.ggml_backend_rpc_add_server.argtypes = [text]
        library.ggml_backend_register(rpc.ggml_backend_rpc_add_server(address.encode()))
    return library


@dataclass(frozen=True)
class RpcServer:
    """A ggml-rpc-server that runs: its address, as "127.0.0.1:50052", and its process."""

    address: str
    pid: int


@contextmanager
def serve_rpc(n_threads: int = 1) -> Iterator[RpcServer]:
    """Run a ggml-rpc-server on this machine for as long as the block lasts.

    It has no protection at all: whoever can reach the address can read and write what the server
    holds, and perhaps more. So it listens on 127.0.0.1 alone, where this machine's users are.
    n_threads: of the CPU, on which it computes if it finds no graphics card.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = tool("ggml-rpc-server")
    # It loads any libggml-*.so of the current folder: let that be its own.
    command = ["sh", "-c", _GUARD, str(program), "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(
        [*command, "-t", str(n_threads)],
        cwd=program.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # what ends this process and its group must leave the guard
    ) as guard:
        assert guard.stdin is not None and guard.stdout is not None
        try:
            server = RpcServer(f"127.0.0.1:{port}", int(guard.stdout.readline()))
            _wait_for(guard, port)
            yield server
        finally:
            guard.stdin.close()


def _wait_for(guard: subprocess.Popen[str], port: int) -> None:
    """Return when the server listens; raise ToolchainError if it ends, or takes too long."""
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until and guard.poll() is None:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.05)
    raise ToolchainError(
        f"ggml-rpc-server does not answer on port {port}; run it by hand to see why."
    )
