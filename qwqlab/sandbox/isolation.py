"""How far a program is shut in: the levels, the limits, and what they mean in plain words."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import SandboxError
from . import confine

LEVELS = ("weak", "partial", "strong")
THREADS = 64
REMEDIES = {
    "limits": "resource limits, which this system does not take",
    "landlock": "Landlock, which Linux has since 5.13 (`landlock` must be in the kernel's `lsm=`)",
    "seccomp": "seccomp, for which the system's libseccomp is needed (Debian: libseccomp2)",
}


@dataclass(frozen=True)
class Limits:
    """What a program may use up: seconds of wall clock and of processor, bytes, files.

    file_bytes is for one file, folder_bytes for all in its folder, output_bytes for stdout and
    for stderr each.
    """

    seconds: float = 20
    cpu_seconds: int = 15
    memory_bytes: int = 1 << 30
    file_bytes: int = 32 << 20
    folder_bytes: int = 128 << 20
    files: int = 1000
    output_bytes: int = 1 << 20


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Isolation:
    """What holds and what does not, a sentence each; `applied` names the layers.

    The level is "strong" where files, network, processes, memory and time are all held, "partial"
    where some of them are, and "weak" where only time, memory and the size of files are.
    """

    level: str
    network: str
    filesystem: str
    memory: str
    processes: str
    applied: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON has it."""
        return {**asdict(self), "applied": list(self.applied)}


def describe(applied: Sequence[str], limits: Limits) -> Isolation:
    """What these layers give together.

    >>> describe(["limits"], Limits()).network
    'open: all that this machine reaches'
    """
    filtered, apart = "seccomp" in applied, "namespaces" in applied
    folder, memory = show_bytes(limits.folder_bytes), show_bytes(limits.memory_bytes)
    network = ["no socket can be made"] if filtered else []
    network += ["its network has no device"] if apart else []
    filesystem = f"open: all that this user may open; its own folder is held to {folder}"
    if "landlock" in applied:
        filesystem = (
            f"reads Python and system libraries, writes its own folder of at most {folder}; "
            "nothing else can be opened"
        )
        if not filtered:
            filesystem += ", but mode, owner and times of this user's files can be changed"
    processes = "open: it can start others, and signal this user's; one that hides may outlive it"
    if filtered:
        processes = f"itself alone, of at most {THREADS} threads; it can signal no other"
    elif apart:
        processes = "its own, which end with it; it can signal no other"
    # macOS takes a limit on memory and does not hold anybody to it.
    bounded = "limits" in applied and sys.platform != "darwin"
    bound = f"at most {memory}" + ("" if filtered else " for each of its processes")
    return Isolation(
        level=confine.grade(applied),
        network=f"none: {', '.join(network)}" if network else "open: all that this machine reaches",
        filesystem=filesystem,
        memory=bound if bounded else "not limited",
        processes=processes,
        applied=tuple(applied),
    )


def check_level(isolation: Isolation, minimum: str, lacking: Mapping[str, str]) -> None:
    """SandboxError, with what lacks and how to get it or go without, if it is below the minimum.

    lacking: the reason for each layer that was tried and failed.
    """
    if LEVELS.index(isolation.level) >= LEVELS.index(minimum):
        return
    lacks = "; ".join(
        f"{remedy} (here: {lacking.get(name, 'left out')})"
        for name, remedy in REMEDIES.items()
        if name not in isolation.applied
    )
    raise SandboxError(
        f"The sandbox is {isolation.level} here and not {minimum}, so the program was not run: it "
        f"lacks {lacks}. minimum={isolation.level!r} runs it all the same."
    )


def show_bytes(count: int) -> str:
    """
    >>> show_bytes(128 << 20), show_bytes(1000)
    ('128 MiB', '1000 bytes')
    """
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count} bytes"
