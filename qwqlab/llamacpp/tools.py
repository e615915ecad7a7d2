"""Find llama.cpp and run its programs: one build, whose library the Python bindings load too.

`QWQLAB_LLAMA_CPP_BUILD=/path/bin` names a build to use instead of the lab's own. Run as a program,
`python -m qwqlab.llamacpp.tools [target ...]`, this module compiles what the set-up needs.
"""

from __future__ import annotations

import functools
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import paths
from ..errors import ToolchainError, explain_exit, last_lines
from ..progress import guard_output
from .builds import TARGETS, Progress, bin_dir, capture, compile_targets, read_record
from .loading import THREADS, count_threads

SUFFIX = ".dylib" if sys.platform == "darwin" else ".so"

BACKENDS = ("CUDA", "HIP", "Metal", "SYCL", "Vulkan")
"""What a build may compute on besides the CPU, each in a library of its own."""

STAND_IN = "QWQLAB_DEVICE"
"""The variable that gives each process a ggml-rpc-server of its own in the part of a GPU."""


@dataclass(frozen=True)
class Llama:
    """A build of llama.cpp.

    bin:      the folder of its programs.
    lib:      the folder of its libraries, often the same.
    version:  such as "0.5.0-dev (build 0, commit 0c1e570)".
    compiler: such as "GNU 12.2.0 for Linux x86_64".
    backend:  "CPU", or what it can use besides, such as "CUDA".
    """

    bin: Path
    lib: Path
    version: str
    compiler: str
    backend: str


def find_build() -> Llama:
    """Return the build that the lab uses: the one in `QWQLAB_LLAMA_CPP_BUILD`, or else its own.

    Raise ToolchainError if there is none, or if it doesn't start.
    """
    named = os.environ.get("QWQLAB_LLAMA_CPP_BUILD")
    if named:
        folder = paths.from_user(named).resolve()
        remedy = f"QWQLAB_LLAMA_CPP_BUILD={named}: name the bin folder of a build of llama.cpp"
    else:
        folder = bin_dir()
        remedy = "run `make setup`"
        if not read_record().get("targets"):
            raise ToolchainError(f"llama.cpp is not built: {remedy}.")
    places = (folder, folder.parent / "lib", folder.parent / "lib64")
    lib = next((place for place in places if (place / f"libllama{SUFFIX}").is_file()), None)
    if lib is None or not (folder / "llama-completion").is_file():
        raise ToolchainError(f"There is no llama.cpp in {folder}: {remedy}.")
    version, compiler = _ask_version(folder / "llama-completion", lib.stat().st_mtime_ns)
    found = [name for name in BACKENDS if (lib / f"libggml-{name.lower()}{SUFFIX}").exists()]
    return Llama(folder, lib, version, compiler, "+".join(found) or "CPU")


def build(targets: Iterable[str] = TARGETS, progress: Progress | None = None) -> Llama:
    """Compile what is missing of the lab's own build, and return it; see `compile_targets`."""
    compile_targets(targets, progress)
    return find_build()


def tool(name: str) -> Path:
    """Return the path of a program, such as llama-quantize; ToolchainError if it is not built."""
    path = find_build().bin / name
    if path.is_file():
        return path
    if name in TARGETS:
        raise ToolchainError(f"{name} is not built: run `make setup`.")
    raise ToolchainError(
        f"{name} is not built: run `python -m qwqlab.llamacpp.tools {name}` if llama.cpp has it."
    )


def run_tool(
    name: str,
    args: Sequence[str | os.PathLike[str]],
    timeout: float | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run one of llama.cpp's tools to its end; return what it wrote to stdout and stderr.

    What it does is in its arguments: of the variables that set flags it gets LLAMA_ARG_THREADS.
    timeout: in seconds. cwd: the folder that it runs in, if not the current one. Raise
    ToolchainError with the tool's last lines if it fails, or if it takes too long.
    """
    command = [str(tool(name)), *(os.fspath(arg) for arg in args)]
    spin_briefly()
    environment = _plain_environment()
    if THREADS in os.environ:
        environment[THREADS] = str(count_threads())
    done = capture(command, timeout, env=environment, cwd=cwd)
    if done.returncode != 0:
        # Its logger writes from a thread that its exit does not wait for (llama.cpp #22142).
        said = last_lines(done.stderr) or f"it said nothing, run `{shlex.join(command)}` to see why"
        raise ToolchainError(f"{name} {explain_exit(done.returncode)}: {said}")
    return done


def library_dir() -> Path:
    """Return the folder whose libllama the bindings load; raise ToolchainError without a build."""
    return find_build().lib


def spin_briefly() -> None:
    """Let a thread that waits for another one spin for microseconds, then sleep.

    By default OpenMP's threads spin for milliseconds, at each of the thousand joints of a step.
    Two notebooks on the same cores then take each other's time: on two cores both came to a halt.
    A short spin doesn't slow a lone run (docs/decisions.md has the figures). OpenMP reads the
    variable when the library is loaded; a value that you set yourself is kept.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def point_bindings() -> Path:
    """Make the next `import llama_cpp` load the library in `library_dir()`; return that folder."""
    spin_briefly()
    folder = library_dir()
    os.environ["LLAMA_CPP_LIB_PATH"] = str(folder)
    return folder


def _plain_environment() -> dict[str, str]:
    """Return the environment without what sets llama.cpp's flags: LLAMA_ARG_*, and config.ini.

    A program that crashes shall say why, and not where.
    """
    plain = {k: v for k, v in os.environ.items() if not k.startswith("LLAMA_ARG_")}
    return {**plain, "XDG_CONFIG_HOME": os.devnull, "GGML_NO_BACKTRACE": "1"}


def describe_build() -> str:
    """Return version, compiler and backend of the build in one line, as runs are stored with."""
    llama = find_build()
    return f"llama.cpp {llama.version}, {llama.compiler}, {llama.backend}"


@functools.cache
def _ask_version(program: Path, built_ns: int) -> tuple[str, str]:
    """Return the version of a program, and the compiler with its target.

    built_ns: when it was built; after another build the answer kept here is not used.
    """
    done = capture([program, "--version"], env=_plain_environment())
    text = done.stdout + done.stderr
    version = re.search(r"^version: (.+)$", text, re.MULTILINE)
    compiler = re.search(r"^built with (.+)$", text, re.MULTILINE)
    if done.returncode != 0 or not version:
        why = explain_exit(done.returncode) if done.returncode else "did not name its version"
        raise ToolchainError(f"{program} {why}: {last_lines(text) or 'it said nothing'}")
    return version[1], compiler[1] if compiler else "unknown compiler"


def main() -> int:
    """Compile what the set-up needs and the targets named, with a line of progress every 10 %."""
    guard_output()
    started = time.monotonic()
    shown = 0

    def show(step: int, steps: int) -> None:
        nonlocal shown
        tenth = 10 * step // steps
        if tenth > shown:
            shown = tenth
            seconds = time.monotonic() - started
            print(f"  {10 * tenth:3} % of {steps} steps, {seconds:.0f} s", flush=True)

    try:
        build({*TARGETS, *sys.argv[1:]}, progress=show)
    except ToolchainError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
