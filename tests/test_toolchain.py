"""llama.cpp found, built and run: on the real build, and on a llama.cpp of three lines of C."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from qwqlab import paths
from qwqlab.errors import ToolchainError
from qwqlab.files import sha256_of
from qwqlab.llamacpp import builds, tools

TARGETS = ("llama", "llama-completion")

CMAKELISTS = """
cmake_minimum_required(VERSION 3.14)
project(llama C)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
add_library(llama SHARED llama.c)
foreach(tool llama-completion llama-server)
  add_executable(${tool} main.c)
  target_link_libraries(${tool} llama)
endforeach()
if(SLOW)
  add_custom_target(wait COMMAND ${CMAKE_COMMAND} -E sleep 60)
  add_dependencies(llama-server wait)
endif()
"""
LIBRARY = 'const char * llama_version(void) { return "0.0.1-tiny"; }\n'
PROGRAM = """
#include <stdio.h>
const char * llama_version(void);
int main(void) {
    fprintf(stderr, "version: %s (build 7, commit abc)\\n", llama_version());
    fprintf(stderr, "built with C for here\\n");
    return 0;
}
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of a llama.cpp that compiles in a second, and an empty home to build it in."""
    checkout = tmp_path / "checkout"
    write_tiny_source(checkout)
    monkeypatch.setenv("QWQLAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("QWQLAB_LLAMA_CPP", str(checkout))
    monkeypatch.delenv("QWQLAB_LLAMA_CPP_BUILD", raising=False)
    monkeypatch.delenv("CMAKE_ARGS", raising=False)
    return checkout


def write_tiny_source(folder: Path) -> None:
    (folder / "include").mkdir(parents=True)
    (folder / "include" / "llama.h").write_text("")
    (folder / "CMakeLists.txt").write_text(CMAKELISTS)
    (folder / "llama.c").write_text(LIBRARY)
    (folder / "main.c").write_text(PROGRAM)


def test_the_real_build_names_its_version_compiler_and_backend() -> None:
    llama = tools.find_build()
    assert llama.version[0].isdigit()
    assert tools.describe_build().startswith(f"llama.cpp {llama.version}, {llama.compiler}, ")
    assert (tools.library_dir() / f"libllama{tools.SUFFIX}").is_file()


def test_the_door_opens_before_there_is_a_build(tmp_path: Path) -> None:
    code = (
        "import sys; from qwqlab.llamacpp import OPTIONS, Loading, build, find_nvidia_gpu, tool;"
        "from qwqlab.sampling import PRESETS, Request, parse_command;"
        "print('llama_cpp' in sys.modules)"
    )
    environment = {**os.environ, "QWQLAB_HOME": str(tmp_path), "PYTHONPATH": str(paths.CHECKOUT)}
    environment.pop("QWQLAB_LLAMA_CPP_BUILD", None)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_a_tool_runs_and_gives_its_output(model_path: Path) -> None:
    done = tools.run_tool("llama-tokenize", ["-m", str(model_path), "-p", "Hello", "--ids"])
    (ids,) = [line for line in done.stdout.splitlines() if line.startswith("[")]
    assert json.loads(ids) == [19556]


def test_a_tool_that_fails_says_why_in_one_sentence(tmp_path: Path) -> None:
    absent = tmp_path / "absent.gguf"
    with pytest.raises(ToolchainError) as caught:
        tools.run_tool("llama-quantize", [str(absent), str(tmp_path / "out.gguf"), "Q4_0"])
    assert str(caught.value).startswith("llama-quantize failed with exit code 1: ")
    assert str(absent) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tool_that_takes_too_long_is_stopped(model_path: Path) -> None:
    args = ["-m", str(model_path), "-p", "x", "-n", "100000", "-no-cnv", "--ignore-eos"]
    with pytest.raises(ToolchainError, match=r"did not end within 0\.5 seconds"):
        tools.run_tool("llama-completion", args, timeout=0.5)


def test_a_tool_that_is_not_built_names_the_command_that_builds_it(tiny: Path) -> None:
    with pytest.raises(ToolchainError, match="run `make setup`"):
        tools.tool("llama-completion")
    tools.build(TARGETS)
    assert tools.tool("llama-completion").is_file()
    with pytest.raises(ToolchainError, match="llama-quantize is not built: run `make setup`"):
        tools.tool("llama-quantize")
    with pytest.raises(ToolchainError, match=r"python -m qwqlab\.llamacpp\.tools llama-server"):
        tools.tool("llama-server")


def test_a_build_from_a_checkout_is_found_and_reports_its_progress(tiny: Path) -> None:
    steps: list[tuple[int, int]] = []
    llama = tools.build(TARGETS, lambda done, total: steps.append((done, total)))
    assert llama.version == "0.0.1-tiny (build 7, commit abc)"
    assert llama.compiler == "C for here"
    assert llama.backend == "CPU"
    assert steps[-1][0] == steps[-1][1] == len(steps)


def test_a_build_can_be_moved_since_its_programs_look_beside_themselves(
    tiny: Path, tmp_path: Path
) -> None:
    llama = tools.build(TARGETS)
    moved = tmp_path / "elsewhere"
    shutil.move(llama.bin, moved)
    done = subprocess.run([moved / "llama-completion"], capture_output=True, text=True, check=True)
    assert "0.0.1-tiny" in done.stderr


def test_another_target_is_added_and_the_others_stay(tiny: Path) -> None:
    tools.build(TARGETS)
    before = tools.tool("llama-completion").stat().st_mtime_ns
    tools.build(["llama-server"])
    assert tools.tool("llama-server").is_file()
    assert tools.tool("llama-completion").stat().st_mtime_ns == before
    assert builds.read_record()["targets"] == ["llama", "llama-completion", "llama-server"]


def test_other_cmake_arguments_build_anew_and_none_keep_what_is_there(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CMAKE_ARGS", "-DTHING=one")
    tools.build(TARGETS)
    cache = builds.bin_dir().parent / "CMakeCache.txt"
    assert "THING:UNINITIALIZED=one" in cache.read_text()
    monkeypatch.delenv("CMAKE_ARGS")
    tools.build(TARGETS)
    assert "THING:UNINITIALIZED=one" in cache.read_text()
    monkeypatch.setenv("CMAKE_ARGS", "-DTHING=two")
    tools.build(TARGETS)
    assert "THING:UNINITIALIZED=two" in cache.read_text()


def test_a_compiler_error_is_quoted_and_the_log_is_named(tiny: Path) -> None:
    (tiny / "llama.c").write_text("int llama( {\n")
    with pytest.raises(ToolchainError, match=r"did not compile: .*llama\.c:1:.*error") as caught:
        tools.build(TARGETS)
    assert str(builds.log_path()) in str(caught.value)
    with pytest.raises(ToolchainError, match="not built"):
        tools.find_build()


def test_a_killed_build_is_no_build_and_goes_on_where_it_stopped(tiny: Path) -> None:
    code = "import sys; from qwqlab.llamacpp import tools; tools.build(sys.argv[1:])"
    environment = {**os.environ, "CMAKE_ARGS": "-DSLOW=ON", "PYTHONPATH": str(paths.CHECKOUT)}
    command = [sys.executable, "-c", code, *TARGETS, "llama-server"]
    builder = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True
    )
    program = builds.bin_dir() / "llama-completion"
    log = program.parents[1] / ".ninja_log"
    linked = f"\tbin/{program.name}\t"
    while builder.poll() is None and not (log.is_file() and linked in log.read_text()):
        time.sleep(0.05)
    os.killpg(builder.pid, signal.SIGKILL)
    assert builder.wait() == -signal.SIGKILL
    with pytest.raises(ToolchainError, match="not built"):
        tools.find_build()
    before = program.stat().st_mtime_ns
    tools.build(TARGETS)
    assert tools.tool("llama-completion").stat().st_mtime_ns == before


def test_a_build_in_a_copied_checkout_starts_anew_rather_than_fail(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools.build(TARGETS)
    shutil.copytree(tmp_path / "home", tmp_path / "copy")
    monkeypatch.setenv("QWQLAB_HOME", str(tmp_path / "copy"))
    assert tools.build(["llama-server"]).bin == builds.bin_dir()
    assert tools.tool("llama-completion").is_file()


def test_a_folder_named_by_mistake_is_named_in_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QWQLAB_LLAMA_CPP_BUILD", str(tmp_path))
    with pytest.raises(ToolchainError, match=f"QWQLAB_LLAMA_CPP_BUILD={tmp_path}"):
        tools.find_build()
    monkeypatch.setenv("QWQLAB_LLAMA_CPP", str(tmp_path))
    with pytest.raises(ToolchainError, match=f"QWQLAB_LLAMA_CPP={tmp_path} holds no llama.cpp"):
        builds.find_source()


def test_the_source_is_unpacked_from_an_archive_with_the_pinned_hash(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("QWQLAB_LLAMA_CPP")
    pack_tiny_sdist(tiny, monkeypatch)
    left = paths.build_dir() / builds.SDIST.folder
    left.mkdir()
    (left / "half").write_text("a killed unpacking")
    assert tools.build(TARGETS).version.startswith("0.0.1-tiny")
    assert not (left / "half").exists()
    assert not list(paths.build_dir().glob(".unpack-*"))


def test_an_archive_with_another_hash_is_not_used(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("QWQLAB_LLAMA_CPP")
    # pip finds no index here, so what cannot be downloaded again ends in an error.
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    archive = pack_tiny_sdist(tiny, monkeypatch)
    archive.write_bytes(archive.read_bytes()[:-1] + b"!")
    with pytest.raises(ToolchainError, match="pip could not download llama-cpp-python"):
        builds.fetch_source()
    assert builds.find_source() is None
    assert not list(paths.build_dir().glob(".download-*"))


def pack_tiny_sdist(source: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny source in the place and form of the real sdist, with its hash as the pinned one."""
    archive = builds.archive_path()
    archive.parent.mkdir(parents=True)
    with tarfile.open(archive, "w:gz") as file:
        file.add(source, f"{builds.SDIST.folder}/vendor/llama.cpp")
    pinned = builds.Sdist(
        builds.SDIST.package,
        builds.SDIST.version,
        sha256_of(archive),
        archive.stat().st_size,
        "abc",
    )
    monkeypatch.setattr(builds, "SDIST", pinned)
    return archive


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is all of PATH, and no CUDA named by the environment."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for name in ("CMAKE_ARGS", "CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    return folder


def write_program(path: Path, output: str, returncode: int = 0) -> None:
    path.write_text(f"#!/bin/sh\necho '{output}'\nexit {returncode}\n")
    path.chmod(0o755)


def test_a_gpu_with_its_compiler_asks_for_cuda(programs: Path) -> None:
    write_program(programs / "nvidia-smi", "NVIDIA H100 80GB HBM3")
    write_program(programs / "nvcc", "")
    backend = builds.choose_backend()
    assert [option.flag for option in backend.options] == [
        "-DGGML_CUDA=ON",
        f"-DCMAKE_CUDA_COMPILER={programs / 'nvcc'}",
    ]
    assert "NVIDIA H100 80GB HBM3" in backend.sentence


def test_a_driver_without_a_gpu_gives_a_cpu_build(programs: Path) -> None:
    write_program(programs / "nvidia-smi", "No devices were found", returncode=6)
    write_program(programs / "nvcc", "")
    backend = builds.choose_backend()
    assert backend.options == ()
    assert backend.sentence == "A CPU build: no NVIDIA GPU is found."


def test_cmake_args_have_the_last_word_on_cuda(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_program(programs / "nvidia-smi", "NVIDIA H100 80GB HBM3")
    write_program(programs / "nvcc", "")
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_CUDA=OFF")
    assert builds.choose_backend().options == ()


def test_a_process_spins_briefly_unless_the_reader_said_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    tools.spin_briefly()
    assert "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    tools.spin_briefly()
    assert os.environ["GOMP_SPINCOUNT"] == "7"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    tools.spin_briefly()
    assert os.environ["GOMP_SPINCOUNT"] == "1000"
