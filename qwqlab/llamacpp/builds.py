"""Compile llama.cpp: with which options and why, and from which source.

The sdist of llama-cpp-python holds the whole source of llama.cpp, so programs and bindings have
one version, and a package index is all that we need. `QWQLAB_LLAMA_CPP=/path/to/llama.cpp` names a
checkout to use instead. The build is in `build_dir()/llama.cpp`. A killed build goes on where it
stopped: the record of what is ready is written last.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import files, paths, preflight
from ..errors import ToolchainError, last_lines
from ..files import read_json, sha256_of
from ..paths import build_dir

Progress = Callable[[int, int], None]  # called with the build steps done, and with their number


@dataclass(frozen=True)
class Option:
    """One CMake option, and why the lab sets it."""

    name: str
    value: str
    why: str

    @property
    def flag(self) -> str:
        """The option as CMake takes it, such as -DGGML_CUDA=ON."""
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
    Option("GGML_RPC", "ON", "lets several machines hold one model, a part each (notebook 09)"),
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
    "ggml-rpc-server",
)
"""What the set-up builds; llama-server and llama-cli take minutes more, so only on request."""


@dataclass(frozen=True)
class Backend:
    """The options that choose CPU or GPU, and a sentence on why they were chosen."""

    options: tuple[Option, ...]
    sentence: str


def choose_backend() -> Backend:
    """Choose CUDA if there is an NVIDIA GPU and nvcc, else llama.cpp's own choice.

    The environment variable `CMAKE_ARGS` decides if it mentions GGML_CUDA.
    """
    if "GGML_CUDA" in os.environ.get("CMAKE_ARGS", ""):
        return Backend((), "As CMAKE_ARGS asks: " + os.environ["CMAKE_ARGS"])
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
    """Return the first NVIDIA GPU that the driver lists, such as "NVIDIA H100 80GB HBM3"."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        done = capture([program, "--query-gpu=name", "--format=csv,noheader"], timeout=30)
    except ToolchainError:
        return None
    names = done.stdout.strip().splitlines()
    return names[0].strip() if done.returncode == 0 and names else None


def _find_nvcc() -> str | None:
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    beside = [str(Path(home) / "bin" / "nvcc") for home in homes if home]
    return next((path for path in map(shutil.which, ["nvcc", *beside]) if path), None)


@dataclass(frozen=True)
class Sdist:
    """A source distribution, fixed by its hash; `commit` is that of the llama.cpp within."""

    package: str
    version: str
    sha256: str
    size: int
    commit: str

    @property
    def folder(self) -> str:
        """The name of the one folder that the archive holds."""
        return f"{self.package.replace('-', '_')}-{self.version}"


SDIST = Sdist(
    package="llama-cpp-python",
    version="0.3.36",
    sha256="832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
    size=76_589_250,
    commit="0c1e570",
)


def archive_path() -> Path:
    """Return the place of the downloaded sdist."""
    return build_dir() / f"{SDIST.folder}.tar.gz"


def find_source() -> Path | None:
    """Return llama.cpp's source folder, if there is one: the named checkout or the unpacked sdist.

    Raise ToolchainError if `QWQLAB_LLAMA_CPP` names a folder that is not llama.cpp's source.
    """
    named = os.environ.get("QWQLAB_LLAMA_CPP")
    unpacked = build_dir() / SDIST.folder / "vendor" / "llama.cpp"
    source = paths.from_user(named).resolve() if named else unpacked
    if (source / "CMakeLists.txt").is_file() and (source / "include" / "llama.h").is_file():
        return source
    if named:
        raise ToolchainError(
            f"QWQLAB_LLAMA_CPP={named} holds no llama.cpp source: name a checkout of llama.cpp, "
            "or unset it to use the source that comes with the bindings."
        )
    return None


def fetch_source() -> Path:
    """Return llama.cpp's source folder; download and unpack the sdist first if there is none.

    A killed download or unpacking starts again: its result is moved into place at the end. Raise
    ToolchainError if the pinned archive can't be downloaded.
    """
    if source := find_source():
        return source
    archive = fetch_archive()
    print("Unpacking the source of llama.cpp ...")
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=build_dir()) as folder:
        shutil.unpack_archive(archive, folder)
        goal = build_dir() / SDIST.folder
        shutil.rmtree(goal, ignore_errors=True)
        (Path(folder) / SDIST.folder).replace(goal)
    return goal / "vendor" / "llama.cpp"


def fetch_archive() -> Path:
    """Return the sdist, downloaded if needed; raise ToolchainError if that fails."""
    archive = archive_path()
    if archive.is_file() and sha256_of(archive) == SDIST.sha256:
        return archive
    print(f"Downloading the source of llama.cpp ({SDIST.size / 1e6:.0f} MB) ...")
    files.make_folder(build_dir())
    with tempfile.TemporaryDirectory(prefix=".download-", dir=build_dir()) as folder:
        # A hash in a requirements file makes pip check the archive before it runs any code of it.
        wanted = Path(folder) / "wanted.txt"
        wanted.write_text(
            f"{SDIST.package}=={SDIST.version} --hash=sha256:{SDIST.sha256}\n", "ascii"
        )
        command = module_command("pip", "download", "--quiet", "--no-deps")
        command += ["--no-binary", SDIST.package, "--dest", folder, "--requirement", str(wanted)]
        done = capture(command)
        if done.returncode != 0:
            raise ToolchainError(
                f"pip could not download {SDIST.package} {SDIST.version} "
                f"({last_lines(done.stderr, 1)}): check the network, or name a llama.cpp checkout "
                "in QWQLAB_LLAMA_CPP."
            )
        next(Path(folder).glob("*.tar.gz")).replace(archive)
    return archive


def bin_dir() -> Path:
    """Return the folder of the lab's own build that holds programs and libraries."""
    return build_dir() / "llama.cpp" / "bin"


def log_path() -> Path:
    """Return the file with the output of the last build."""
    return build_dir() / "llama.cpp.log"


def compile_targets(targets: Iterable[str] = TARGETS, progress: Progress | None = None) -> Path:
    """Compile what is not compiled yet; return the folder of programs and libraries.

    targets: CMake targets, such as "llama-server"; those built before stay. `foretell_time` says
    how long a first build takes. A finished build is kept until `CMAKE_ARGS` or `QWQLAB_LLAMA_CPP`
    asks for another. Raise ToolchainError with CMake's or the compiler's message, or if the source
    can't be had.
    """
    if named := os.environ.get("QWQLAB_LLAMA_CPP_BUILD"):
        print(f"Using the llama.cpp in {named}, as QWQLAB_LLAMA_CPP_BUILD says.")
        return paths.from_user(named).resolve()
    record = read_record()
    plan = _plan(record)
    done = set(record["targets"]) if plan is record else set()
    wanted = sorted(done | set(targets))
    # A checkout may have moved on since, which only ninja can tell.
    if set(wanted) == done and not os.environ.get("QWQLAB_LLAMA_CPP"):
        return bin_dir()
    source = fetch_source()
    if plan["flags"] != record.get("flags"):
        shutil.rmtree(bin_dir().parent, ignore_errors=True)
    _write_record({**plan, "targets": sorted(done)})
    print(plan["backend"])
    print(f"Compiling llama.cpp ({foretell_time(plan['flags'])}; the log is {log_path()}) ...")
    _configure(source, plan["flags"])
    _compile(wanted, progress)
    _write_record({**plan, "targets": wanted})
    return bin_dir()


def foretell_time(flags: Iterable[str]) -> str:
    """Return how long a build with these flags of CMake takes, in words.

    >>> foretell_time(["-DGGML_CUDA=ON"])
    'with CUDA far longer than the 5 minutes of a CPU build; not measured here'
    """
    cuda = [flag for flag in flags if re.match(r"-DGGML_CUDA(:BOOL)?=", flag)]
    if cuda and cuda[-1].rpartition("=")[2].upper() in ("ON", "1", "YES", "TRUE"):
        return "with CUDA far longer than the 5 minutes of a CPU build; not measured here"
    return "about 5 minutes on two cores"


def read_record() -> dict[str, Any]:
    """Return source, flags, backend and finished targets of the lab's own build.

    It is empty if there is no build; "targets" is an empty list while the first one runs.
    """
    record = read_json(bin_dir().parent / "build.json")
    return record if "targets" in record else {}


def _write_record(record: dict[str, Any]) -> None:
    folder = files.make_folder(bin_dir().parent)
    files.write_text(folder / "build.json", json.dumps(record, indent=1))


def _plan(record: dict[str, Any]) -> dict[str, Any]:
    """Return the record itself if the build that it describes is still the one asked for."""
    asked = os.environ.get("CMAKE_ARGS")
    checkout = os.environ.get("QWQLAB_LLAMA_CPP")
    plan = {"source": checkout or SDIST.sha256, "options": [option.flag for option in OPTIONS]}
    if {**record, **plan} == record and asked in (None, record["cmake_args"]):
        return record
    backend = choose_backend()
    flags = [*plan["options"], *(option.flag for option in backend.options)]
    if not checkout:
        # The archive has no number, and git would give that of a checkout around it.
        flags += [f"-DLLAMA_BUILD_COMMIT={SDIST.commit}", "-DLLAMA_BUILD_NUMBER=0"]
    flags += shlex.split(asked or "")
    return {**plan, "cmake_args": asked or "", "flags": flags, "backend": backend.sentence}


def _configure(source: Path, flags: list[str]) -> None:
    # CMake would refuse the cache of a build that was moved; ninja keeps what is still good.
    (bin_dir().parent / "CMakeCache.txt").unlink(missing_ok=True)
    command = [_find_program("cmake"), "-G", "Ninja"]
    command += [f"-DCMAKE_MAKE_PROGRAM={_find_program('ninja')}"]
    command += ["-S", str(source), "-B", str(bin_dir().parent), *flags]
    done = capture(command)
    log_path().write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode != 0:
        raise ToolchainError(f"CMake could not configure llama.cpp: {_explain_log()}")


def _compile(targets: list[str], progress: Progress | None) -> None:
    # A compiler for each CPU, and no more than one for each GB of memory.
    jobs = max(1, min(preflight.count_cpus(), int(preflight.count_memory() / 1e9)))
    command = [_find_program("ninja"), "-C", str(bin_dir().parent), f"-j{jobs}", *targets]
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


def _find_program(name: str) -> str:
    """Find cmake or ninja: the one that pip put into this environment, or else one on PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        raise ToolchainError(f"{name} is not installed: run `pip install {name}`, or `make setup`.")
    return found


def _explain_log() -> str:
    """Return the first error in the log, and where to read the rest."""
    text = log_path().read_text(encoding="utf-8", errors="replace")
    # CMake names the place on one line, which ends in a colon, and the error on the next.
    error = re.search(r"^(?:.*[ \t])?error\b.*(?:(?<=:)\n.*)?", text, re.IGNORECASE | re.MULTILINE)
    message = " ".join(error[0].split()) if error else last_lines(text, 1)
    return f"{message} (the whole log is {log_path()})"


# Python puts the current folder first on the path of -c and -m, and a model may lie there beside
# some json.py. Python 3.10 has no -P, and -I would drop PYTHONPATH as well.
_RUN_MODULE = (
    "import sys; sys.path = [path for path in sys.path if path]; import runpy; "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


def module_command(name: str, *arguments: str) -> list[str]:
    """Return the command for `python -m name`, but that takes no module from the current folder."""
    return [sys.executable, "-c", _RUN_MODULE, name, *arguments]


def capture(
    command: Sequence[str | Path], timeout: float | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; return what it wrote, decoded as UTF-8.

    options: cwd and env, as subprocess takes them. Raise ToolchainError if it doesn't start, or
    takes more than `timeout` seconds.
    """
    name = Path(command[0]).name
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, **options
        )
    except subprocess.TimeoutExpired as error:
        raise ToolchainError(f"{name} did not end within {timeout:g} seconds.") from error
    except OSError as error:
        raise ToolchainError(f"{command[0]} does not start: {error}.") from error
    # subprocess's own text mode would turn a carriage return into a newline.
    stdout, stderr = (stream.decode("utf-8", "replace") for stream in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(command, done.returncode, stdout, stderr)
