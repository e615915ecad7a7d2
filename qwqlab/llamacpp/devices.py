"""DROP THIS FILE ON MERGING: a stand-in for llamacpp.list_devices until the real one lands."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from .tools import SUFFIX, library_dir


@dataclass(frozen=True)
class Device:
    """A device with its memory in bytes: what is free now, and all of it."""

    name: str
    description: str
    free: int
    total: int


def list_devices() -> tuple[Device, ...]:
    """Return the devices on which llama.cpp computes besides the CPU."""
    library: Any = ctypes.CDLL(str(library_dir() / f"libggml{SUFFIX}"))
    pointer, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
    library.ggml_backend_dev_count.restype = size
    library.ggml_backend_dev_get.restype, library.ggml_backend_dev_get.argtypes = pointer, [size]
    for name, result in (("type", ctypes.c_int), ("name", text), ("description", text)):
        function = getattr(library, f"ggml_backend_dev_{name}")
        function.restype, function.argtypes = result, [pointer]
    library.ggml_backend_dev_memory.argtypes = [pointer, *[ctypes.POINTER(size)] * 2]
    found = []
    for place in range(library.ggml_backend_dev_count()):
        device = library.ggml_backend_dev_get(place)
        if library.ggml_backend_dev_type(device) in (1, 2):
            free, total = size(), size()
            library.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
            name, description = (
                ask(device).decode("utf-8", "replace")
                for ask in (library.ggml_backend_dev_name, library.ggml_backend_dev_description)
            )
            found.append(Device(name, description, free.value, total.value))
    return tuple(found)
