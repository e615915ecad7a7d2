"""The exercises of the notebooks, a module for each, named like it and loaded on first use.

At the top they import only what loads in an instant and without llama.cpp, so that the form of the
notebooks can be checked before anything is built; the rest is imported where it is used.
"""

from importlib import import_module
from pathlib import Path
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    if (Path(__file__).parent / f"{name}.py").is_file():
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
