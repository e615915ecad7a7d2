"""Compile llama.cpp once, for the tools and the Python bindings, and say how far it is.

The build lies in `build_dir()/llama.cpp`. A killed one goes on where it stopped, and what is ready
stands in a record that is written last.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .. import files, hashes, paths, preflight
from ..errors import ToolchainError
from ..paths import build_dir
from .llama_options import OPTIONS, TARGETS, choose_backend
from .llama_source import SDIST, Say, bring_source

Progress = Callable[[int, int], None]
"""Called with the number of build steps done and the number in all."""

RECORD = "build.json"


def bin_dir() -> Path:
    """The folder of the lab's own build that holds programs and libraries."""
    return build_dir() / "llama.cpp" / "bin"


def log_path() -> Path:
    """Where the output of the last build lies."""
    return build_dir() / "llama.cpp.log"


def build(
    targets: Iterable[str] = TARGETS, progress: Progress | None = None, say: Say = print
) -> Path:
    """Compile what is not compiled yet, and give the folder of programs and libraries.

    targets: CMake targets, such as "llama-server"; those built before stay. From nothing it takes
    about 5 minutes on two cores, and a moment when everything is there. A build that is there is
    kept until `CMAKE_ARGS` or `QWQLAB_LLAMA_CPP` asks for another. Raises ToolchainError with the
    compiler's message, or with what is missing: compiler, disk or source.
    """
    if named := os.environ.get("QWQLAB_LLAMA_CPP_BUILD"):
        say(f"Using the llama.cpp in {named}, as QWQLAB_LLAMA_CPP_BUILD says.")
        return paths.from_user(named).resolve()
    record = read_record()
    plan = _plan(record)
    done = set(record["targets"]) if plan is record else set()
    wanted = sorted(done | set(targets))
    # A checkout may have moved on since, which only ninja can tell.
    if set(wanted) == done and not os.environ.get("QWQLAB_LLAMA_CPP"):
        return bin_dir()
    for check in [*preflight.check_compilers(), preflight.check_disk(build_dir(), 1.0)]:
        if not check.ok:
            raise ToolchainError(check.sentence())
    source = bring_source(say)
    _clear_stale(source, keep=plan["flags"] == record.get("flags"))
    _write_record({**plan, "targets": sorted(done)})
    say(plan["backend"])
    say(f"Compiling llama.cpp (about 5 minutes on two cores; the log is {log_path()}) ...")
    _configure(source, plan["flags"])
    _compile(wanted, progress)
    _write_record({**plan, "targets": wanted})
    return bin_dir()


def read_record() -> dict[str, Any]:
    """What the lab's own build is of: source, flags, backend, and the targets that are ready.

    Empty where there is no build; its "targets" is an empty list while the first one runs.
    """
    record = hashes.read_json(bin_dir().parent / RECORD)
    return record if "targets" in record else {}


def _write_record(record: dict[str, Any]) -> None:
    path = bin_dir().parent / RECORD
    files.make_folder(path.parent)
    files.write_text(path, json.dumps(record, indent=1))


def _plan(record: dict[str, Any]) -> dict[str, Any]:
    """The record itself where the build that it describes is still the one asked for."""
    asked = os.environ.get("CMAKE_ARGS")
    plan = {
        "source": os.environ.get("QWQLAB_LLAMA_CPP") or SDIST.sha256,
        "options": [option.flag for option in OPTIONS],
    }
    if {**record, **plan} == record and asked in (None, record["cmake_args"]):
        return record
    backend = choose_backend()
    flags = [*plan["options"], *(option.flag for option in backend.options)]
    if not os.environ.get("QWQLAB_LLAMA_CPP"):
        # The archive has no number, and git would answer for whatever checkout lies around it.
        flags += [f"-DLLAMA_BUILD_COMMIT={SDIST.commit}", "-DLLAMA_BUILD_NUMBER=0"]
    flags += shlex.split(asked or "")
    return {**plan, "cmake_args": asked or "", "flags": flags, "backend": backend.sentence}


def _clear_stale(source: Path, keep: bool) -> None:
    """Remove a build folder with other flags or source, or one that was moved: CMake refuses it."""
    folder = bin_dir().parent
    cache = folder / "CMakeCache.txt"
    if not cache.is_file():
        return
    lines = cache.read_text(encoding="utf-8", errors="replace").splitlines()
    home = f"CMAKE_HOME_DIRECTORY:INTERNAL={source}"
    here = f"CMAKE_CACHEFILE_DIR:INTERNAL={folder}"
    if not (keep and home in lines and here in lines):
        shutil.rmtree(folder)


def _configure(source: Path, flags: list[str]) -> None:
    ninja = _find_program("ninja")
    command = [_find_program("cmake"), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    command += ["-S", str(source), "-B", str(bin_dir().parent), *flags]
    with log_path().open("w", encoding="utf-8") as log:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode != 0:
        raise ToolchainError(f"CMake could not configure llama.cpp: {_explain_log()}")


def _compile(targets: list[str], progress: Progress | None) -> None:
    command = [_find_program("ninja"), "-C", str(bin_dir().parent), f"-j{count_jobs()}", *targets]
    environment = {**os.environ, "NINJA_STATUS": "[%f/%t] "}
    with (
        log_path().open("a", encoding="utf-8") as log,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=environment,
        ) as ninja,
    ):
        assert ninja.stdout is not None
        try:
            for line in ninja.stdout:
                log.write(line)
                step = re.match(r"\[(\d+)/(\d+)\]", line)
                if step and progress:
                    progress(int(step[1]), int(step[2]))
        except BaseException:
            ninja.terminate()
            raise
    if ninja.returncode != 0:
        raise ToolchainError(f"llama.cpp did not compile: {_explain_log()}")


def count_jobs() -> int:
    """Compilers to run at once: one for each CPU, and no more than one for each GB of memory."""
    gigabytes = int(preflight.count_memory() / 1e9)
    return max(1, min(preflight.count_cpus(), gigabytes))


def _find_program(name: str) -> str:
    """cmake or ninja: the one that pip brought into this environment, or else one on PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        raise ToolchainError(f"{name} is not installed: run `pip install {name}`, or `make setup`.")
    return found


def _explain_log() -> str:
    """The first error in the log, and where to read the rest."""
    lines = log_path().read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines):
        if re.search(r"(^|\s)error\b", line, re.IGNORECASE):
            # CMake says where on one line, and what on the next.
            told = [line, *lines[number + 1 : number + 2]] if line.endswith(":") else [line]
            break
    else:
        told = lines[-1:]
    message = " ".join(part.strip() for part in told) or "no output"
    return f"{message} (the whole log is {log_path()})"
