"""A folder for machines without a network: built once, and a second environment set up from it.

The second one has no network, no pip cache and an empty home. What this leaves out: most of the
compile. The set-up there gets the build of llama.cpp that is here, after a check that its source is
the folder's, and only llama.cpp's first library is compiled anew. One machine plays both parts, so
another system's C library, compiler or CPU is not tried, and neither are several Pythons.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from qwqlab import paths
from qwqlab.course import offline
from qwqlab.errors import FetchError, QwqlabError
from qwqlab.files import read_sha256
from qwqlab.llamacpp import builds

CONNECT = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 60)"
# A machine without a network still has its own loop, over which a kernel is asked: SIOCSIFFLAGS.
WITH_LOOP = """
import fcntl, os, socket, struct, sys
with socket.socket() as some:
    fcntl.ioctl(some, 0x8914, struct.pack("16sh14x", b"lo", 0x49))
os.execvp(sys.argv[1], sys.argv[1:])
"""
FIRST_LIBRARY = "from qwqlab.llamacpp import builds; builds.compile_targets(['ggml-base'])"


def write_folder(folder: Path, versions: str = "") -> Path:
    """A folder with one small file for build/ and no wheels."""
    (folder / "build" / "models").mkdir(parents=True)
    (folder / "build" / "models" / "small.gguf").write_bytes(b"GGUF and little else")
    offline.write_own_files(folder, versions or f"3.{sys.version_info[1]}")
    offline.write_manifest(folder)
    return folder


def set_up(folder: Path, lab: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the folder's own program as far as there is no pip: a `make` that only says its words."""
    tools = folder.parent / "tools"
    tools.mkdir(exist_ok=True)
    (tools / "make").write_text('#!/bin/sh\necho make "$@"\n')
    (tools / "make").chmod(0o755)
    return subprocess.run(
        ["sh", str(folder / "set-up.sh"), str(lab)],
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def place(folder: Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Check the hashes of a folder and copy its build/, as `make setup OFFLINE=...` does first."""
    return subprocess.run(
        ["make", "from-folder", f"OFFLINE={folder}", f"PYTHON={sys.executable}"],
        cwd=paths.CHECKOUT,
        env={**os.environ, "QWQLAB_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_files_go_into_build_and_a_damaged_one_is_named_before_any_is_copied(
    tmp_path: Path,
) -> None:
    folder, home = write_folder(tmp_path / "a stick"), tmp_path / "a home"
    for _ in range(2):
        done = place(folder, home)
        assert done.returncode == 0, done.stderr
    assert (home / "build/models/small.gguf").read_bytes() == b"GGUF and little else"
    (folder / "build/models/small.gguf").write_bytes(b"GGUF and little elsf")
    done = place(folder, tmp_path / "other")
    assert done.returncode and "build/models/small.gguf: FAILED" in done.stdout
    (folder / "build/models/small.gguf").unlink()
    done = place(folder, tmp_path / "other")
    assert done.returncode and "build/models/small.gguf" in done.stderr
    assert not (tmp_path / "other").exists()


def test_the_checkout_is_unpacked_whole_and_never_over_another(tmp_path: Path) -> None:
    folder, lab = write_folder(tmp_path / "a stick"), tmp_path / "my lab"
    lab.mkdir()
    done = set_up(folder, lab)
    assert done.returncode == 0, done.stderr
    assert f"make -C {lab} setup OFFLINE={folder} PYTHON=" in done.stdout
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=paths.CHECKOUT, stdout=subprocess.PIPE)
    names = [name for name in listed.stdout.decode().split("\0") if name]
    names = [name for name in names if (paths.CHECKOUT / name).exists()]
    for name in names or ["Makefile"]:
        assert (lab / name).read_bytes() == (paths.CHECKOUT / name).read_bytes(), name
        assert os.access(lab / name, os.X_OK) == os.access(paths.CHECKOUT / name, os.X_OK), name
    assert not (lab / "build").exists() and not (lab / ".git").exists()
    (lab / "README.md").write_text("my notes")
    assert set_up(folder, lab).returncode == 0
    assert (lab / "README.md").read_text() == "my notes"
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "one").write_text("Dear")
    assert "holds other things: name another place" in set_up(folder, tmp_path / "letters").stderr


def test_a_folder_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    other = write_folder(tmp_path / "other", versions="3.98 3.99")
    said = set_up(other, tmp_path / "lab").stderr
    assert "The folder is for Python 3.98 3.99 and" in said and "PYTHON=python" in said
    folder = write_folder(tmp_path / "stick")
    said = set_up(folder, tmp_path / "lab", PYTHON="python3.99").stderr
    assert "python3.99 does not run: install Python, or put PYTHON=" in said
    (folder / "SHA256SUMS").unlink()
    assert "is not finished: run `make offline` again" in set_up(folder, tmp_path / "lab").stderr
    script = (folder / "set-up.sh").read_text().replace(offline.name_platform(), "Plan 9")
    (folder / "set-up.sh").write_text(script)
    assert "The folder is for Plan 9 and this is " in set_up(folder, tmp_path / "lab").stderr
    assert not (tmp_path / "lab").exists()


def test_a_folder_is_built_only_where_it_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter").write_text("Dear")
    for folder, sentence in (
        (paths.CHECKOUT / "stick", "lies in the checkout"),
        (tmp_path / "full", "holds other things: name a new or an empty folder"),
        (tmp_path / "full" / "letter" / "stick", "cannot be written"),
    ):
        with pytest.raises(QwqlabError, match=sentence) as caught:
            offline.build_folder(folder)
        assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["letter"]
    with pytest.raises(FetchError, match=r"python3\.99 does not run here: install it, or leave it"):
        offline.build_folder(tmp_path / "stick", pythons=["python3.99"])
    assert not (tmp_path / "stick").exists()


@pytest.fixture(scope="module")
def cut(lacking: Callable[[str], NoReturn]) -> list[str]:
    """The start of a command that runs the rest of it without a network."""
    for prefix in (["unshare", "-n"], ["unshare", "-rn"]):
        if (
            shutil.which("unshare")
            and subprocess.run([*prefix, "true"], check=False).returncode == 0
        ):
            return prefix
    return lacking("unshare cannot cut the network off here")


def test_wheels_that_cannot_be_had_are_one_sentence_and_no_folder_that_looks_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(FetchError, match="pip could not collect the wheels for ") as caught:
        offline.build_folder(tmp_path / "stick")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "stick" / offline.MANIFEST).exists()


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that is removed afterwards: pytest would keep three times 3 GB."""
    path = tmp_path_factory.mktemp("offline")
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def stick(room: Path, lacking: Callable[[str], NoReturn]) -> Path:
    """The real folder, with a space in its name as sticks have."""
    folder = room / "a stick"
    try:
        offline.build_folder(folder)
    except FetchError as error:
        lacking(str(error))
    return folder


def make_hostile(room: Path) -> dict[str, str]:
    """An environment that leads pip and Python astray, with an empty home and no pip cache."""
    home = room / "home"
    (home / ".config" / "pip").mkdir(parents=True, exist_ok=True)
    (home / ".config" / "pip" / "pip.conf").write_text("[install]\nrequire-hashes = true\n")
    kept = {key: value for key, value in os.environ.items() if not key.startswith("QWQLAB_")}
    return {
        **kept,
        "HOME": str(home),
        "PYTHON": sys.executable,
        "PYTHONPATH": str(paths.CHECKOUT),
        "PIP_INDEX_URL": "http://192.0.2.1/simple",
        "PIP_EXTRA_INDEX_URL": "http://192.0.2.1/more",
        "PIP_TARGET": str(room / "astray"),
        "PIP_FIND_LINKS": "",
    }


def run(command: Sequence[str | Path], environment: dict[str, str], cwd: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_the_cut_is_one(cut: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [sys.executable, "-c", CONNECT, str(server.getsockname()[1])]
        subprocess.run(command, check=True)
        done = subprocess.run([*cut, *command], capture_output=True, text=True, check=False)
    assert "Network is unreachable" in done.stderr
    listed = subprocess.run([*cut, "cat", "/proc/net/dev"], capture_output=True, text=True)
    assert [line.split(":")[0].strip() for line in listed.stdout.splitlines()[2:]] == ["lo"]


@pytest.mark.nightly
@pytest.mark.slow
def test_a_second_environment_is_set_up_without_a_network_and_generates(
    stick: Path, room: Path, cut: list[str], lacking: Callable[[str], NoReturn]
) -> None:
    lab, environment = room / "my lab", make_hostile(room)
    record = builds.read_record()
    archive = stick / "build" / builds.archive_path().name
    if record.get("source") != read_sha256(archive):
        lacking("the llama.cpp that is here was not built from the source in the folder")
    # A set-up that began elsewhere: the checkout is there, and llama.cpp is compiled.
    lab.mkdir()
    with tarfile.open(stick / offline.CHECKOUT) as packed:
        packed.extractall(lab)
    shutil.copytree(builds.bin_dir().parent, lab / "build" / "llama.cpp", symlinks=True)

    said = run([*cut, "sh", stick / "set-up.sh", lab], environment, room)
    assert "Compiling" not in said
    assert "qwqlab is set up" in said
    installed = (lab / ".venv" / ".qwqlab").stat().st_mtime_ns
    assert "Installing" not in run([*cut, "make", "setup", f"OFFLINE={stick}"], environment, lab)
    assert (lab / ".venv" / ".qwqlab").stat().st_mtime_ns == installed
    assert not (room / "astray").exists()

    del environment["PYTHONPATH"]
    program = lab / ".venv" / "bin" / "qwqlab"
    alone = [*cut, sys.executable, "-c", WITH_LOOP]
    report = run([*alone, program, "doctor"], environment, lab)
    assert report.strip().endswith("Everything is there.")
    assert f"{lab}/build/llama.cpp/bin" in report
    asked = ["generate", "--prompt", "The capital of France is", "-n", "5", "--seed", "1", "--json"]
    told = run([*cut, program, *asked], environment, lab)
    there = json.loads(next(line for line in told.splitlines() if line.startswith("{")))
    here = subprocess.run(
        [sys.executable, "-m", "qwqlab.cli", *asked], capture_output=True, text=True, check=True
    )
    assert len(there["tokens"]) == 5
    assert there["tokens"] == json.loads(here.stdout)["tokens"]

    # The source in the folder configures as the build here was, and its first library compiles.
    environment["QWQLAB_HOME"] = str(room / "second home")
    run([*cut, "make", "from-folder", f"OFFLINE={stick}"], environment, lab)
    run([*cut, lab / ".venv" / "bin" / "python", "-c", FIRST_LIBRARY], environment, lab)
    built = room / "second home" / "build" / "llama.cpp"
    assert list((built / "bin").glob("libggml-base.*"))
    assert json.loads((built / "build.json").read_text())["flags"] == record["flags"]
