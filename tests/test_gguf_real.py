"""`qwqlab inspect` and `qwqlab generate` on changed headers of the embedded model."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from malformed import Gguf, Raw, string
from mutations import FORM, MEANING, damage, mutate, take_apart

from qwqlab.llamacpp import find_build
from qwqlab.models import inspect

SEED = 3407
ROOM = 1 << 18  # bytes by which a changed header may be longer
COMMANDS = (("inspect",), ("generate", "--prompt", "The quick", "-n", "4", "-m"))

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of its own, in which every file is new."""
    monkeypatch.setenv("QWQLAB_LLAMA_CPP_BUILD", str(find_build().bin))
    monkeypatch.setenv("QWQLAB_HOME", str(tmp_path / "home"))


class Model:
    """The embedded model in a file of its own, whose header can be written anew in place."""

    def __init__(self, source: Path, path: Path) -> None:
        self.path = path
        start = inspect(source).tensors[0].offset
        self._start = -(-start // 4096) * 4096 + ROOM
        data = source.read_bytes()
        self.parts = take_apart(data[:start])
        with path.open("wb") as file:
            file.seek(self._start)
            file.write(data[start:])

    def write(self, made: Gguf, rng: random.Random | None = None) -> None:
        """Write a header over the last one, with a key that fills the room: the data stays.

        rng: damages a byte or some.
        """
        made.keys.append((b"room", Raw(8, string(b""))))
        pieces = list(made.head())
        if made.tensors:
            pieces.pop()  # what aligns the data
        room = self._start - sum(map(len, pieces))
        made.keys[-1] = (b"room", Raw(8, string(bytes(room))))
        header = b"".join(made.head())
        if rng:
            header = damage(rng, header, len(header))
        with self.path.open("r+b") as file:
            file.write(header)


def run(command: tuple[str, ...], path: Path) -> tuple[int, str]:
    """Exit status and stderr of a command on a file; a hang is an error."""
    done = subprocess.run(
        [sys.executable, "-m", "qwqlab.cli", *command, path],
        capture_output=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stderr.decode()


def try_one(model: Model, number: int) -> tuple[int, ...]:
    """Exit statuses of the commands on the file that this seed makes, each with one sentence."""
    rng = random.Random(number)
    form = rng.random() < 0.2
    made = mutate(rng, model.parts, FORM if form else MEANING)
    model.write(made, rng if form else None)
    statuses = []
    for command in COMMANDS:
        status, said = run(command, model.path)
        assert status in (0, 1, 2), f"seed {number}, {command}: status {status}, {said}"
        assert "Traceback" not in said, f"seed {number}, {command}: {said}"
        assert said.strip() or not status, f"seed {number}, {command}: no reason"
        statuses.append(status)
    return tuple(statuses)


def try_many(first: int, count: int, source: Path, folder: Path) -> None:
    def work(seeds: range) -> list[tuple[int, ...]]:
        model = Model(source, folder / f"{seeds.start}.gguf")
        return [try_one(model, seed) for seed in seeds]

    last = first + count
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(work, (range(first, last, 2), range(first + 1, last, 2)))
        ends = Counter(statuses for part in found for statuses in part)
    print(f"seeds {first} to {last - 1}, {count} headers: inspect and generate gave {dict(ends)}")


@pytest.mark.nightly
def test_the_model_runs_with_a_header_that_was_written_anew(
    model_path: Path, tmp_path: Path
) -> None:
    model = Model(model_path, tmp_path / "whole.gguf")
    model.write(model.parts)
    assert [run(command, model.path)[0] for command in COMMANDS] == [0, 0]


def test_changed_headers_of_a_model_end_in_a_text_or_a_sentence(
    model_path: Path, tmp_path: Path
) -> None:
    try_many(SEED, 3, model_path, tmp_path)


@pytest.mark.nightly
def test_500_changed_headers_of_a_model_end_in_a_text_or_a_sentence(
    model_path: Path, tmp_path: Path
) -> None:
    try_many(0, 500, model_path, tmp_path)
