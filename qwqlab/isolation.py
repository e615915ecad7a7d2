"""How well a program can be confined on this machine, in levels and in plain words."""

from __future__ import annotations

import functools
import importlib
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

LEVELS = ("weak", "partial", "strong")
UNSHARE = ("unshare", "--user", "--map-current-user", "--net", "--ipc")
# Where no filter keeps it from starting others, they end with a process tree of its own. With the
# filter this is left out: `unshare` then stands in between, and gives no true exit status.
OWN_TREE = ("--pid", "--fork", "--kill-child")


@dataclass(frozen=True)
class Isolation:
    """How well a program is confined, in plain words.

    level is "strong" (files, network and processes held by the kernel), "partial" (some of them)
    or "weak" (limits and a clock alone). applied names the layers.
    """

    level: str
    network: str
    filesystem: str
    memory: str
    processes: str
    applied: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {**asdict(self), "applied": list(self.applied)}


def describe(applied: Sequence[str]) -> Isolation:
    """The level that these layers reach, and what holds in plain words."""
    has = set(applied)
    files = "landlock" in has
    alone = "seccomp" in has
    quiet = alone or "namespaces" in has
    limits = "rlimits" in has
    strong = files and alone and limits
    level = "strong" if strong else "partial" if files or quiet else "weak"
    return Isolation(
        level,
        "none: no socket can be opened" if alone
        else "none: an empty network of its own" if quiet
        else "not held: the program can reach what this machine can",
        "reads Python and system libraries, writes only its own temporary folder" if files
        else "not held: the program can read and write what you can",
        "one process within its limit" if limits else "not held",
        "none: it can start no other" if alone
        else "its own, ended with it" if "namespaces" in has
        else "not held: what it starts is ended if it stays in its session",
        ("own session", "clean environment", "wall clock", *applied),
    )  # fmt: skip


def refuse(isolation: Isolation, minimum: str) -> str:
    """The sentence for a program that is not run, because the level is below the minimum."""
    lacking = [n for n in ("rlimits", "landlock", "seccomp") if n not in isolation.applied]
    return (
        f"this machine confines a program only to the level {isolation.level}, and {minimum} is "
        f"asked for ({', '.join(lacking)} could not be applied); use Linux 5.13 or newer with "
        f"libseccomp2, or accept the level {isolation.level} for programs that you trust"
    )


@functools.lru_cache(maxsize=1)
def has_seccomp() -> bool:
    """Whether the library that makes the filter is here."""
    try:
        importlib.import_module("pyseccomp")
    except (ImportError, OSError, RuntimeError):
        return False
    return True


@functools.lru_cache(maxsize=1)
def has_namespaces() -> bool:
    """Whether `unshare` may make namespaces here; some systems forbid it."""
    try:
        done = subprocess.run(
            [*UNSHARE, *OWN_TREE, "true"], capture_output=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
