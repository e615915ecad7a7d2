"""A full disk, a read-only one, a model's file that changes: a sentence, and nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from outside import CHECKOUT, can_mount, environment, run_mounted, run_python
from test_runs import ABOUT, make_run

from qwqlab import paths
from qwqlab.errors import ModelFileError
from qwqlab.experiments import LOADING, RunStore, sweep
from qwqlab.models import sweep_copy
from qwqlab.sampling import PRESETS, Engine, Request

Script = Callable[..., list[str]]


@pytest.fixture
def can_have_disks(lacking: Callable[[str], NoReturn]) -> None:
    if not can_mount():
        lacking("a process here cannot have disks of its own (unshare --mount)")


# A disk that is full

PREAMBLE = """
import os, sys
from pathlib import Path
from qwqlab.errors import QwqlabError
from test_runs import ABOUT, make_run
disk, filler = Path(sys.argv[1]), Path(sys.argv[1]) / "filler"
def fill():
    with filler.open("ab", buffering=0) as file:
        size = 1 << 20
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2
def refusal(work, *args):
    try:
        work(*args)
    except QwqlabError as error:
        return str(error)
    raise AssertionError("the disk had room")
def names():
    return sorted(path.name for path in disk.rglob("*") if path.is_file() and path != filler)
"""


@pytest.fixture
def on_a_small_disk(can_have_disks: None, tmp_path: Path) -> Script:
    """A function that runs code in a process whose `disk` has so many MB; gives what it prints."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def run(megabytes: int, code: str, *args: str | Path, **more: str) -> list[str]:
        mount = f"mount -t tmpfs -o size={megabytes}m none {disk}"
        done = run_mounted(mount, PREAMBLE + code, disk, *args, env=environment(**more))
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


def test_a_store_on_a_full_disk_keeps_its_runs_and_takes_more_when_there_is_room(
    on_a_small_disk: Script,
) -> None:
    code = """
from qwqlab.experiments import RunStore
path = disk / "runs.sqlite"
added = []
def add():
    for seed in range(len(added), 10_000):
        store.add(make_run(seed, text=os.urandom(4000).hex()), **ABOUT)
        added.append(seed)
with RunStore(path) as store:
    for seed in range(20):
        store.add(make_run(seed), **ABOUT)
        added.append(seed)
    fill()
    print(refusal(add))
    assert [run.run.request.seed for run in store.runs()] == added
    filler.unlink()
    seed = len(added)
    store.add(make_run(seed), **ABOUT)
    added.append(seed)
fill()
with RunStore(path) as store:
    print(refusal(add))
filler.unlink()
with RunStore(path) as store:
    assert [run.run.request.seed for run in store.runs()] == added
"""
    for sentence in on_a_small_disk(4, code):
        assert "runs.sqlite cannot be read or written: " in sentence
        assert sentence.endswith("; make room on its disk, what it holds is kept.")


def test_a_store_on_a_full_disk_is_exported_to_another_also_after_a_crash(
    on_a_small_disk: Script, tmp_path: Path
) -> None:
    code = """
import sqlite3, tempfile
from qwqlab.cli import main
from qwqlab.experiments import RunStore
path, out = disk / "runs.sqlite", Path(sys.argv[2])
tempfile.tempdir = os.environ["TMPDIR"] = str(disk)
with RunStore(path) as store:
    for seed in range(20):
        store.add(make_run(seed, text="x" * 20_000), **ABOUT)
if not os.fork():  # killed while it writes: its journal has to be rolled back
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA cache_size = 1")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE runs SET run = run || 'half'")
    os.kill(os.getpid(), 9)
os.wait()
assert (disk / "runs.sqlite-journal").exists()
fill()
assert main(["export", str(path), str(out / "runs.json")]) == 0
assert main(["export", str(path), str(out / "runs.csv")]) == 0
"""
    on_a_small_disk(4, code, tmp_path)
    runs = json.loads((tmp_path / "runs.json").read_text(encoding="utf-8"))
    assert [run["run"]["request"]["seed"] for run in runs] == list(range(20))


def test_what_is_written_to_a_full_disk_leaves_the_file_that_was_there(
    on_a_small_disk: Script, tmp_path: Path
) -> None:
    store = tmp_path / "runs.sqlite"
    with RunStore(store) as kept:
        for seed in range(40):
            kept.add(make_run(seed, text="word " * 3000), **ABOUT)
    code = """
import json
from qwqlab import files
from qwqlab.plots import report
from qwqlab.experiments import RunStore, read_evidence
results = read_evidence("smollm2-135m").arms
store = RunStore(sys.argv[2])
works = {
    "runs.csv": store.export_csv,
    "runs.json": store.export_json,
    "report.html": lambda path: report.write_report(path, results, [], "prompt", "model", "build"),
    "values.json": lambda path: files.write_json(path, {"x": "y" * 100_000}),
}
for name in works:
    (disk / name).write_text("kept")
files.update_json(disk / "hashes.json", "key", 1)
before = names()
fill()
for name, work in works.items():
    print(refusal(work, disk / name))
    assert (disk / name).read_text() == "kept"
files.update_json(disk / "hashes.json", "other", 2)
assert files.read_json(disk / "hashes.json") == {"key": 1}
assert names() == before
filler.unlink()
"""
    said = on_a_small_disk(2, code, store, CHECKOUT)
    targets = ["runs.csv", "runs.json", "report.html", "values.json"]
    disk = tmp_path / "disk"
    assert said == [
        f"{disk / name} cannot be written: its disk is full; make room and run it again."
        for name in targets
    ]


def test_a_journal_on_a_full_disk_keeps_what_it_holds_and_goes_on(on_a_small_disk: Script) -> None:
    code = """
os.environ["QWQLAB_HOME"] = str(disk)
from qwqlab.quant.journal import Journal
row = {"text": "x" * 1000}
journal = Journal("errors", "key")
journal.add({"row": 0, **row})
fill()
kept = 0
def add():
    global kept
    for number in range(1, 100):
        journal.add({"row": number, **row})
        kept = number
print(refusal(add))
filler.unlink()
journal = Journal("errors", "key")
assert [each["row"] for each in journal.rows] == list(range(kept + 1))
journal.add({"row": kept + 1})
assert [each["row"] for each in Journal("errors", "key").rows] == list(range(kept + 2))
"""
    (said,) = on_a_small_disk(1, code)
    assert ".jsonl cannot be written: its disk is full; make room" in said


def test_a_copy_for_which_the_disk_has_no_room_leaves_none(
    on_a_small_disk: Script, model_path: Path
) -> None:
    code = """
import threading, time
os.environ["QWQLAB_HOME"] = str(disk)
from qwqlab.models import import_local
from qwqlab.models import requantize
source, folder = Path(sys.argv[2]), disk / "build" / "models"
print(refusal(import_local, source))
print(refusal(requantize, source, "F16"))
# Room when it begins, and none when it goes on: another program takes it.
over = threading.Event()
def take():
    while not over.is_set():
        if any(path.stat().st_size for path in folder.glob(".*Q4_0*")):
            fill()
thread = threading.Thread(target=take)
thread.start()
print(refusal(requantize, source, "Q4_0"))
over.set()
thread.join()
filler.unlink()
assert not [name for name in names() if ".gguf" in name], names()
assert requantize(source, "Q4_0").is_file()
"""
    imported, before, meanwhile = on_a_small_disk(90, code, model_path)
    assert f"{model_path.name} needs 98.4 MB more" in imported
    assert "SmolLM2-135M-Instruct.F16.gguf cannot be written: its disk is full" in before
    assert "SmolLM2-135M-Instruct.Q4_0.gguf cannot be written: its disk is full" in meanwhile


def test_a_download_that_fills_the_disk_goes_on_when_there_is_room(on_a_small_disk: Script) -> None:
    code = """
from hub_server import serve_hub
from test_fetch import BIG, NAME, ONE, REPO, part_of
from qwqlab.models import downloads
from huggingface_hub import constants
os.environ["QWQLAB_HOME"] = str(disk)
check_disk = downloads.check_disk
with serve_hub() as hub:
    hub.add(REPO, {NAME: BIG})
    constants.ENDPOINT, constants.HF_HUB_CACHE = hub.endpoint, str(disk)
    filler.write_bytes(bytes(1_500_000))
    downloads.check_disk = lambda *args: None  # as if another program took the room meanwhile
    print(refusal(downloads.fetch_repository, ONE))
    downloads.check_disk = check_disk
    kept = part_of(disk).read_bytes()
    assert kept == BIG[:len(kept)]
    filler.unlink()
    assert downloads.fetch_repository(ONE).paths[0].read_bytes() == BIG
    print(len(kept), *hub.ranges())
"""
    said, ranges = on_a_small_disk(2, code, NO_PROXY="127.0.0.1,localhost")
    kept, first, second = ranges.split()
    assert "No space left on device" in said
    assert "make room there, or set HF_HOME to another folder" in said
    assert int(kept) > 0
    assert (first, second) == ("bytes=0-", f"bytes={kept}-")


# A disk that cannot be written


def test_a_checkout_that_cannot_be_written_reads_and_says_what_to_set(
    can_have_disks: None, tmp_path: Path, model_path: Path
) -> None:
    code = """
import sys
from qwqlab import experiments
from qwqlab.cli import main
from qwqlab.models import model_path
from qwqlab.models import requantize
assert experiments.read_prompts("flappy_bird")
assert main(["generate", "--prompt", "Hello", "-n", "4"]) == 0
model = model_path(sys.argv[1])
try:
    requantize(model, "Q4_0")
except Exception as error:
    print(type(error).__name__, error)
assert main(["import", str(model), "copy"]) == 1
assert main(["reproduce", "--quick"]) == 1
"""
    mount = f"mount --bind {CHECKOUT} {CHECKOUT} && mount -o remount,bind,ro {CHECKOUT}"
    before = {path.name for path in paths.models_dir().iterdir()}
    model = Path(shutil.copy(model_path, tmp_path / "my-own.gguf"))
    # Coverage, where it is taken, would keep its data in the checkout.
    plain = {key: v for key, v in environment().items() if not key.startswith("COVERAGE_")}
    done = run_mounted(mount, code, model, env=plain)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    said = [*done.stdout.splitlines()[-1:], *done.stderr.splitlines()[-2:]]
    assert all(f"{CHECKOUT}/build" in line for line in said), said
    assert all("set QWQLAB_HOME to a folder of yours." in line for line in said), said
    assert {path.name for path in paths.models_dir().iterdir()} == before
    home = tmp_path / "home"
    works = """
import sys
from qwqlab import paths
from qwqlab.cli import main
from qwqlab.sampling import Engine
from qwqlab.experiments import LOADING
from qwqlab.models import model_path
from qwqlab.sampling import Request
from qwqlab.models import requantize
from qwqlab.experiments import RunStore
from qwqlab.experiments import sweep
assert main(["import", sys.argv[1]]) == 0
copy = requantize(model_path(sys.argv[1]), "Q4_0")
with Engine(copy, LOADING) as engine, RunStore(paths.runs_dir() / "runs.sqlite") as store:
    sweep(engine, [Request("Hello", n_predict=4)], store)
assert main(["export", str(store.path), str(paths.runs_dir() / "runs.csv")]) == 0
"""
    done = run_mounted(mount, works, model, env=environment(QWQLAB_HOME=str(home)))
    assert done.returncode == 0, done.stderr
    assert (home / "build/runs/runs.csv").is_file()


def test_a_store_that_cannot_be_written_is_read_and_exported(
    can_have_disks: None, tmp_path: Path
) -> None:
    folder = tmp_path / "store"
    with RunStore(folder / "runs.sqlite") as store:
        store.add(make_run(), **ABOUT)
    code = """
import sys
from qwqlab.cli import main
from qwqlab.errors import StoreError
from qwqlab.experiments import RunStore
from test_runs import ABOUT, make_run
path = sys.argv[1] + "/runs.sqlite"
with RunStore(path) as store:
    assert [run.run for run in store.runs()] == [make_run()]
    try:
        store.add(make_run(2), **ABOUT)
    except StoreError as error:
        print(error)
sys.exit(main(["export", path, sys.argv[2] + "/runs.json"]))
"""
    mount = f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}"
    before = sorted(path.name for path in folder.iterdir())
    done = run_mounted(mount, code, folder, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "runs.sqlite cannot be written: it is open to read; copy it to" in done.stdout
    assert len(json.loads((tmp_path / "runs.json").read_text(encoding="utf-8"))) == 1
    assert sorted(path.name for path in folder.iterdir()) == before


# A model's file that changes


@pytest.fixture
def model(model_path: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copy(sweep_copy(model_path), tmp_path / "model.gguf"))


def make_other(model: Path, place: Path) -> Path:
    """Another model of the same size and time: one bit of its weights is another."""
    shutil.copy2(model, place)
    with place.open("r+b") as file:
        file.seek(place.stat().st_size // 2)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    was = model.stat()
    os.utime(place, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert place.stat().st_mtime_ns == was.st_mtime_ns
    return place


REQUESTS = [Request("Once upon a time", PRESETS["official"], seed, 8) for seed in range(3)]


@pytest.mark.parametrize("what", ["replaced", "shortened"])
def test_a_sweep_whose_model_file_changed_is_refused_and_the_engine_lives(
    what: str, model: Path, tmp_path: Path
) -> None:
    with Engine(model, LOADING) as engine, RunStore(tmp_path / "runs.sqlite") as store:
        runs = sweep(engine, REQUESTS[:1], store)
        if what == "replaced":
            make_other(model, tmp_path / "other.gguf").replace(model)
        else:
            os.truncate(model, 1000)
        with pytest.raises(ModelFileError, match=r"model\.gguf"):
            sweep(engine, REQUESTS, store)
        assert len(list(store.runs())) == 1
        # What was loaded still runs.
        again = engine.generate(*(getattr(REQUESTS[0], name) for name in ("prompt", "sampling")),
                                seed=0, n_predict=8)  # fmt: skip
        assert again.tokens == runs[0].tokens


def test_two_models_under_one_name_never_share_a_run(model: Path, tmp_path: Path) -> None:
    ran: list[int] = []
    for replacement in (None, make_other(model, tmp_path / "other.gguf")):
        if replacement:
            replacement.replace(model)
        with Engine(model, LOADING) as engine, RunStore(tmp_path / "runs.sqlite") as store:
            sweep(engine, REQUESTS, store, on_run=lambda done, *_: ran.append(done))
            kept = list(store.runs())
    assert ran == [1, 2, 3] * 2
    assert len(kept) == len({run.key for run in kept}) == 6
    assert len({run.model_sha256 for run in kept}) == 2


def test_a_file_that_is_shortened_during_a_run_does_not_end_the_kernel(model: Path) -> None:
    code = """
import os, sys
from qwqlab.sampling import Engine
from qwqlab.experiments import LOADING
with Engine(sys.argv[1], LOADING) as engine:
    whole = engine.generate("Once upon a time", n_predict=24)
    def cut(index, token, text):
        if token is not None and os.path.getsize(sys.argv[1]) > 1000:
            os.truncate(sys.argv[1], 1000)
    run = engine.generate("Once upon a time", n_predict=24, on_token=cut)
assert os.path.getsize(sys.argv[1]) == 1000
assert run.tokens == whole.tokens
"""
    done = run_python(code, model)
    assert done.returncode == 0, done.stderr


def test_a_large_model_is_mapped_and_looked_at_before_each_run(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qwqlab.sampling.engine.SMALL", 1000)
    with Engine(model, LOADING) as engine:
        assert engine.generate("Hello", n_predict=2).tokens
        maps = Path("/proc/self/maps")
        if maps.is_file():
            assert str(model) in maps.read_text(encoding="utf-8", errors="replace")
        os.truncate(model, 1000)
        with pytest.raises(
            ModelFileError, match=r"was changed, replaced or removed since the engine loaded it"
        ):
            engine.generate("Hello", n_predict=2)
