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
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from qwqlab import llama_build, llama_source, paths
from qwqlab.course import offline, offline_setup, offline_wheels
from qwqlab.course.offline_setup import Refusal
from qwqlab.errors import FetchError
from qwqlab.hashes import read_sha256

CONNECT = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 60)"
# A machine without a network still has its own loop, over which a kernel is asked: SIOCSIFFLAGS.
WITH_LOOP = """
import fcntl, os, socket, struct, sys
with socket.socket() as some:
    fcntl.ioctl(some, 0x8914, struct.pack("16sh14x", b"lo", 0x49))
os.execvp(sys.argv[1], sys.argv[1:])
"""
FIRST_LIBRARY = "from qwqlab import llama_build; llama_build.build(['ggml-base'])"


def describe(**changes: Any) -> dict[str, Any]:
    """What a folder for this machine says of itself."""
    return {
        "platform": offline_setup.name_platform(),
        "glibc": [],
        "pythons": [f"3.{sys.version_info[1]}"],
        "extras": ["train"],
        "pins": read_sha256(paths.CHECKOUT / "constraints.txt"),
        **changes,
    }


def write_folder(folder: Path, **changes: Any) -> Path:
    """A folder with one small file for build/ and no wheels."""
    (folder / "build" / "models").mkdir(parents=True)
    (folder / "build" / "models" / "small.gguf").write_bytes(b"GGUF and little else")
    offline.finish_folder(folder, describe(**changes), ["build/models/small.gguf"])
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QWQLAB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def refuse(arguments: Sequence[str | Path], capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence with which the set-up from a folder refuses."""
    assert offline_setup.main([str(argument) for argument in arguments]) == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


def test_files_go_into_build_once(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_folder(tmp_path / "a stick")
    assert offline_setup.main([str(folder)]) == 0
    placed = home / "build" / "models" / "small.gguf"
    assert placed.read_bytes() == b"GGUF and little else"
    before = placed.stat()
    assert offline_setup.main([str(folder)]) == 0
    assert placed.stat().st_ino == before.st_ino
    placed.write_bytes(b"cut")
    assert offline_setup.main([str(folder)]) == 0
    assert placed.read_bytes() == b"GGUF and little else"


def test_a_damaged_or_missing_file_is_named_and_nothing_is_copied(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_folder(tmp_path / "stick")
    path = folder / "build" / "models" / "small.gguf"
    path.write_bytes(b"GGUF and little elsf")
    assert refuse([folder], capsys).startswith(f"{path} is damaged: copy the folder again")
    path.unlink()
    assert refuse([folder], capsys).startswith(f"{path} is missing: copy the folder again")
    assert not home.exists()


def test_a_folder_that_was_not_finished_sets_nothing_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_folder(tmp_path / "stick")
    (folder / "SHA256SUMS").unlink()
    assert "is no finished folder of `make offline`" in refuse([folder], capsys)
    (folder / "SHA256SUMS").write_text("half a li")
    assert "is no finished folder of `make offline`" in refuse([folder, tmp_path / "lab"], capsys)
    assert not (tmp_path / "lab").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"platform": "Darwin arm64"}, "The folder is for Darwin arm64 and this is "),
        ({"glibc": [2, 999]}, "The folder's packages need glibc 2.999 and this is "),
        ({"pythons": ["3.99"]}, "install that and put PYTHON=python3.99 before the command"),
        ({"pins": "0" * 64}, "wants other versions than "),
    ],
)
def test_a_folder_for_another_machine_is_refused(
    changes: dict[str, Any], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sentence in refuse([write_folder(tmp_path / "stick", **changes)], capsys)


def test_a_python_that_is_here_and_in_the_folder_is_pointed_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "python3.99"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refusal, match=r": put PYTHON=python3\.99 before the command"):
        offline_setup.check_machine(describe(pythons=["3.98", "3.99"]))


def test_the_checkout_is_unpacked_whole_and_never_over_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, lab = write_folder(tmp_path / "stick"), tmp_path / "my lab"
    lab.mkdir()
    assert offline_setup.main([str(folder), str(lab)]) == 0
    for name in offline.list_checkout():
        assert (lab / name).read_bytes() == (paths.CHECKOUT / name).read_bytes(), name
        assert os.access(lab / name, os.X_OK) == os.access(paths.CHECKOUT / name, os.X_OK), name
    assert not (lab / "build").exists()
    (lab / "README.md").write_text("my notes")
    assert offline_setup.main([str(folder), str(lab)]) == 0
    assert (lab / "README.md").read_text() == "my notes"
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "one").write_text("Dear")
    assert "is no checkout of qwqlab" in refuse([folder, tmp_path / "letters"], capsys)


def test_without_git_the_checkout_is_what_git_would_track(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = tmp_path / "lab"
    for name in ("Makefile", "qwqlab/cli.py", ".ci/run"):
        (lab / name).parent.mkdir(parents=True, exist_ok=True)
        (lab / name).write_text("x")
    for name in ("build/models/a.gguf", "venv311/pyvenv.cfg", "qwqlab/__pycache__/cli.pyc"):
        (lab / name).parent.mkdir(parents=True, exist_ok=True)
        (lab / name).write_text("x")
    shutil.copyfile(paths.CHECKOUT / ".gitignore", lab / ".gitignore")
    monkeypatch.setattr(paths, "CHECKOUT", lab)
    assert offline.list_checkout() == [".ci/run", ".gitignore", "Makefile", "qwqlab/cli.py"]


def test_set_up_says_which_python_does_not_run(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", str(write_folder(tmp_path / "stick") / "set-up.sh"), str(tmp_path / "lab")],
        env={**os.environ, "PYTHON": "python3.99"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "python3.99 does not run: install Python, or put PYTHON=" in done.stderr
    assert not (tmp_path / "lab").exists()


def test_a_folder_is_built_only_where_it_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter").write_text("Dear")
    for folder, sentence in (
        (paths.CHECKOUT / "stick", "lies in the checkout"),
        (tmp_path / "full", "holds other things: name a new or an empty folder"),
        (tmp_path / "full" / "letter" / "stick", "cannot be written"),
    ):
        with pytest.raises(FetchError, match=sentence) as caught:
            offline.build_folder(folder)
        assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["letter"]
    with pytest.raises(FetchError, match=r"python3\.99 does not run here: install it, or leave it"):
        offline.build_folder(tmp_path / "stick", pythons=["python3.99"])
    assert not (tmp_path / "stick").exists()


def test_a_wheel_that_was_cut_short_or_changed_is_not_whole(tmp_path: Path) -> None:
    wheel = tmp_path / "a-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("a.py", "answer = 42\n" * 100)
    content = wheel.read_bytes()
    assert offline_wheels.is_whole(wheel)
    wheel.write_bytes(content[:-10])
    assert not offline_wheels.is_whole(wheel)
    wheel.write_bytes(content.replace(b"42", b"43", 1))
    assert not offline_wheels.is_whole(wheel)


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


def test_a_full_disk_is_one_sentence_and_no_folder_that_looks_whole(
    tmp_path: Path, cut: list[str]
) -> None:
    inside = 'mount -t tmpfs -o size=90m none "$1" && "$2" -m qwqlab.cli offline "$1"; ls "$1"'
    done = subprocess.run(
        [cut[0], f"{cut[1]}m", "sh", "-c", inside, "sh", str(tmp_path), sys.executable],
        cwd=paths.CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "needs 98.4 MB more and" in done.stderr
    assert done.stderr.strip().endswith("make room, or name another folder.")
    assert "build" in done.stdout.split()
    assert "SHA256SUMS" not in done.stdout.split()


def test_wheels_that_cannot_be_had_are_one_sentence_and_no_folder_that_looks_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(FetchError, match="pip could not collect the wheels for ") as caught:
        offline.build_folder(tmp_path / "stick")
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in (tmp_path / "stick").iterdir()) == [
        "build",
        "folder.json",
        "wheels",
    ]
    with pytest.raises(Refusal, match="is no finished folder"):
        offline_setup.read_manifest(tmp_path / "stick")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that is removed afterwards: pytest would keep three times 3 GB."""
    path = tmp_path_factory.mktemp("offline")
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def stick(place: Path, lacking: Callable[[str], NoReturn]) -> Path:
    """The real folder, with a space in its name as sticks have."""
    folder = place / "a stick"
    try:
        offline.build_folder(folder)
    except FetchError as error:
        lacking(str(error))
    return folder


def make_hostile(place: Path) -> dict[str, str]:
    """An environment that leads pip and Python astray, with an empty home and no pip cache."""
    home = place / "home"
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
        "PIP_TARGET": str(place / "astray"),
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


@pytest.mark.slow
def test_the_folder_is_whole_and_a_second_build_needs_no_network(
    stick: Path, cut: list[str]
) -> None:
    check = ["sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS"]
    subprocess.run(check, cwd=stick, check=True)
    listed = (stick / "SHA256SUMS").read_text()
    everything = {path.relative_to(stick).as_posix() for path in stick.rglob("*") if path.is_file()}
    assert everything == {line.split("  ")[1] for line in listed.splitlines()} | {"SHA256SUMS"}
    with tarfile.open(stick / "checkout.tar.gz") as archive:
        assert sorted(archive.getnames()) == sorted(offline.list_checkout())
    assert not any(path.name.startswith("qwqlab") for path in (stick / "wheels").iterdir())
    command = [sys.executable, "-m", "qwqlab.cli", "offline", str(stick)]
    said = run([*cut, *command], make_hostile(stick.parent), paths.CHECKOUT)
    assert "Collecting" not in said
    assert "is whole: " in said
    subprocess.run(check, cwd=stick, check=True)
    kept = [line for line in listed.splitlines() if "checkout.tar.gz" not in line]
    assert set(kept) <= set((stick / "SHA256SUMS").read_text().splitlines())


@pytest.mark.slow
def test_a_second_environment_is_set_up_without_a_network_and_generates(
    stick: Path, place: Path, cut: list[str], lacking: Callable[[str], NoReturn]
) -> None:
    lab, environment = place / "my lab", make_hostile(place)
    record = llama_build.read_record()
    archive = stick / "build" / llama_source.archive_path().name
    if record.get("source") != read_sha256(archive):
        lacking("the llama.cpp that is here was not built from the source in the folder")
    # A set-up that began elsewhere: the checkout is there, and llama.cpp is compiled.
    run([*cut, sys.executable, stick / "offline_setup.py", stick, lab], environment, place)
    shutil.copytree(llama_build.bin_dir().parent, lab / "build" / "llama.cpp", symlinks=True)

    said = run([*cut, "sh", stick / "set-up.sh", lab], environment, place)
    assert "Compiling" not in said
    assert "qwqlab is set up" in said
    installed = (lab / ".venv" / ".qwqlab").stat().st_mtime_ns
    assert "Installing" not in run([*cut, "make", "setup", f"OFFLINE={stick}"], environment, lab)
    assert (lab / ".venv" / ".qwqlab").stat().st_mtime_ns == installed
    assert not (place / "astray").exists()

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
    environment["QWQLAB_HOME"] = str(place / "second home")
    run([*cut, sys.executable, "qwqlab/course/offline_setup.py", stick], environment, lab)
    run([*cut, lab / ".venv" / "bin" / "python", "-c", FIRST_LIBRARY], environment, lab)
    built = place / "second home" / "build" / "llama.cpp"
    assert list((built / "bin").glob("libggml-base.*"))
    assert json.loads((built / "build.json").read_text())["flags"] == record["flags"]
