"""What llama.cpp is compiled with: CMake options and why, CPU or CUDA, and which programs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Option:
    """One CMake option, and why the lab sets it."""

    name: str
    value: str
    why: str

    @property
    def flag(self) -> str:
        """As CMake takes it.

        >>> Option("GGML_CUDA", "ON", "").flag
        '-DGGML_CUDA=ON'
        """
        return f"-D{self.name}={self.value}"


OPTIONS = (
    Option("CMAKE_BUILD_TYPE", "Release", "optimised: every speed in this lab is of such a build"),
    Option("BUILD_SHARED_LIBS", "ON", "one libllama serves the tools and the Python bindings"),
    Option(
        "GGML_NATIVE", "ON", "uses all instructions of this CPU; another CPU needs its own build"
    ),
    # GCC 12.2 drops the stores behind `_tile_loadconfig`, so llama.cpp's kernels for these tiles
    # end in an illegal instruction on a Xeon that has them. Without this macro they are off.
    Option("CMAKE_C_FLAGS", "-U__AMX_INT8__", "leaves out Intel's AMX tiles, on which it crashed"),
    Option("CMAKE_CXX_FLAGS", "-U__AMX_INT8__", "the same for C++"),
    Option("LLAMA_BUILD_TESTS", "OFF", "llama.cpp's own tests are not needed to run it"),
    Option("LLAMA_BUILD_EXAMPLES", "OFF", "nor are its examples"),
    Option("LLAMA_OPENSSL", "OFF", "the tools read local files; `qwqlab fetch` does the downloads"),
    Option("LLAMA_USE_PREBUILT_UI", "OFF", "llama-server's build would download its web page"),
    Option("CMAKE_BUILD_WITH_INSTALL_RPATH", "ON", "programs find their libraries as set next"),
    Option(
        "CMAKE_INSTALL_RPATH",
        "@loader_path" if sys.platform == "darwin" else "$ORIGIN",
        "beside themselves, so that the folder can be copied or moved",
    ),
)

TARGETS = (
    "llama",
    "llama-completion",
    "llama-quantize",
    "llama-gguf-split",
    "llama-imatrix",
    "llama-export-lora",
    "llama-perplexity",
    "llama-bench",
    "llama-batched-bench",
    "llama-tokenize",
)
"""What the set-up builds; llama-server and llama-cli take minutes more, so only on request."""


@dataclass(frozen=True)
class Backend:
    """What the build computes on, as options, and how that was decided."""

    options: tuple[Option, ...]
    sentence: str


def choose_backend() -> Backend:
    """CUDA where an NVIDIA GPU and nvcc are found, else what llama.cpp takes by itself.

    The environment variable `CMAKE_ARGS` decides when it says anything of GGML_CUDA.
    """
    if "GGML_CUDA" in os.environ.get("CMAKE_ARGS", ""):
        return Backend((), "As CMAKE_ARGS says: " + os.environ["CMAKE_ARGS"])
    if sys.platform == "darwin":
        return Backend((), "A build for this Mac, with Metal where llama.cpp knows the GPU.")
    gpu = find_nvidia_gpu()
    if gpu is None:
        return Backend((), "A CPU build: no NVIDIA GPU is found.")
    nvcc = _find_nvcc()
    if nvcc is None:
        return Backend(
            (),
            f"A CPU build: {gpu} is here but nvcc is not. For a CUDA build install the CUDA "
            "toolkit, then run `make setup` again.",
        )
    options = (
        Option("GGML_CUDA", "ON", "an NVIDIA GPU and nvcc were found"),
        Option("CMAKE_CUDA_COMPILER", nvcc, "the nvcc that was found"),
    )
    return Backend(
        options, f"A CUDA build: {gpu}, {nvcc}. CMAKE_ARGS=-DGGML_CUDA=OFF asks for one without."
    )


def find_nvidia_gpu() -> str | None:
    """The first NVIDIA GPU that the driver lists, such as "NVIDIA H100 80GB HBM3", or None."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "--query-gpu=name", "--format=csv,noheader"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    names = done.stdout.strip().splitlines()
    return names[0].strip() if done.returncode == 0 and names else None


def _find_nvcc() -> str | None:
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    beside = [str(Path(home) / "bin" / "nvcc") for home in homes if home]
    return next((path for path in map(shutil.which, ["nvcc", *beside]) if path), None)
