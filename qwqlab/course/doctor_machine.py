"""The doctor's look at the machine itself: its memory, CPU and GPU, and how well it can confine."""

from __future__ import annotations

import contextlib
import platform
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from .. import preflight, toolchain
from ..errors import QwqlabError
from ..llama_options import find_nvidia_gpu
from ..preflight import Check
from ..sandbox import probe
from . import notebooks as course

MEMORY_GB, FREE_MEMORY_GB = 3.5, 1.5
"""Enough for most notebooks, and for the smallest."""


def check_memory() -> Check:
    """Whether there is memory for the notebooks, for which not, and whether enough is free now."""
    import psutil

    asked = {}
    with contextlib.suppress(QwqlabError):  # a notebook that a reader broke is another matter
        asked = {each.number: each.contract.memory_gb for each in course.read_course()}
    return judge_memory(preflight.count_memory(), psutil.virtual_memory().available, asked)


def judge_memory(n_bytes: int, n_free: int, asked: Mapping[str, float]) -> Check:
    """The check for a machine with so many bytes of memory, of which so many can be had.

    asked: GB that each notebook asks for, by its number.

    >>> judge_memory(8_000_000_000, 300_000_000, {}).detail
    '8.0 GB, of which 0.3 GB are free and a notebook takes 1.5'
    >>> judge_memory(8_000_000_000, 5_000_000_000, {"00": 1.5, "08": 9}).detail
    '8.0 GB, of which 5.0 GB are free; too little for notebook 08'
    """
    has, free = n_bytes / 1e9, n_free / 1e9
    detail = f"{has:.1f} GB, of which {free:.1f} GB are free"
    if free < FREE_MEMORY_GB:
        remedy = "close other programs, and in JupyterLab use Kernel, Shut Down All Kernels"
        return Check("Memory", False, f"{detail} and a notebook takes {FREE_MEMORY_GB}", remedy)
    large = [number for number, gb in asked.items() if gb > has]
    if large:
        detail += f"; too little for notebook{'s' * (len(large) > 1)} {', '.join(large)}"
    remedy = f"take a machine with {MEMORY_GB} GB or more, or keep to the other notebooks"
    return Check("Memory", has >= MEMORY_GB, detail, remedy)


def check_cpu() -> Check:
    """Which CPU there is, and how many threads it has for us; this cannot fail."""
    return Check("CPU", True, f"{preflight.count_cpus()} threads, {_name_cpu()}")


def _name_cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    named = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return named[1] if named else platform.processor() or platform.machine()


def check_gpu() -> Check:
    """Which GPU there is; none is needed, so this cannot fail."""
    gpu = find_nvidia_gpu()
    if gpu is None and sys.platform == "darwin" and platform.machine() == "arm64":
        gpu = "Apple's, through Metal"
    try:
        backend = toolchain.find().backend
    except QwqlabError:
        backend = "unknown"
    if gpu is None:
        silent = "none that nvidia-smi lists" if shutil.which("nvidia-smi") else "none"
        return Check("GPU", True, f"{silent}, and none is needed: cells that want one are skipped")
    hint = "" if backend != "CPU" else "; `CMAKE_ARGS=-DGGML_CUDA=ON make setup` builds for it"
    return Check("GPU", True, f"{gpu}; llama.cpp is a {backend} build{hint}")


def check_sandbox() -> Check:
    """How well a program that a model wrote can be confined; the grader asks for "strong"."""
    try:
        isolation = probe()
    except QwqlabError as error:
        return Check("Sandbox", False, str(error), "run `make setup`")
    how = f"{isolation.level}, by {', '.join(isolation.applied)}"
    if isolation.level == "strong":
        return Check("Sandbox", True, how)
    return Check("Sandbox", True, f"{how}; `qwqlab grade` runs nothing here unless told otherwise")
