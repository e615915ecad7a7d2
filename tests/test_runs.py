"""The store of runs: nothing that was added is lost, and every run comes back as it was."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qwqlab.errors import StoreError
from qwqlab.experiments import RunStore
from qwqlab.experiments import store as store_module
from qwqlab.experiments.store import MOST_BYTES, run_key
from qwqlab.sampling import Request, Run, Sampling

MACHINE: dict[str, Any] = {"model_sha256": "ab" * 32, "build": "b9999", "settings": {"n_ctx": 2048}}
ABOUT: dict[str, Any] = {
    **MACHINE,
    "model": "smol",
    "command": "llama-completion -s 1",
    "experiment": "e",
}


def make_run(seed: int = 1, text: str = "hello", label: str = "arm", **more: Any) -> Run:
    request = Request("prompt", Sampling(temp=0.6, top_k=40), seed, 64, label)
    values: dict[str, Any] = {
        "tokens": (5, 6, 49151),
        "ranks": (0, 3, 40000),
        "escapes": (2,),
        **more,
    }
    return Run(request, n_prompt=4, text=text, **{"stop": "end", "seconds": 0.25, **values})


def test_a_run_comes_back_as_it_was(tmp_path: Path) -> None:
    run = make_run()
    with RunStore(tmp_path / "runs.sqlite") as store:
        assert store.add(run, **ABOUT)
    with RunStore(tmp_path / "runs.sqlite") as store:
        (stored,) = store.runs()
    assert stored.run == run
    assert stored.settings == MACHINE["settings"]
    assert stored.command == "llama-completion -s 1"
    assert stored.metrics.n_tokens == 3
    assert stored.metrics.why_invalid == "no fenced block"
    assert json.loads(json.dumps(stored.to_dict()))["run"]["tokens"] == [5, 6, 49151]


@pytest.mark.parametrize(
    "text", ["", "\ud800 half a pair", "\U0001f600\r\n\0" + "".join(map(chr, range(300)))]
)
def test_any_text_survives(tmp_path: Path, text: str) -> None:
    run = make_run(text=text)
    run = replace(run, request=replace(run.request, prompt=text))
    with RunStore(tmp_path / "runs.sqlite") as store:
        store.add(run, **ABOUT)
        (stored,) = store.runs()
        assert stored.run == run
        assert store.get(stored.key, experiment="e", label="arm") == stored
        store.export_csv(tmp_path / "runs.csv")
        exported = json.loads(store.export_json(tmp_path / "runs.json").read_text())
    assert exported[0]["run"]["text"] == text


def test_adding_a_run_twice_keeps_one(tmp_path: Path) -> None:
    with RunStore(tmp_path / "runs.sqlite") as store:
        assert store.add(make_run(), **ABOUT)
        assert not store.add(make_run(text="another"), **ABOUT)
        assert [stored.run.text for stored in store.runs()] == ["hello"]
        assert store.add(make_run(label="other arm"), **ABOUT)
        assert store.add(make_run(), **{**ABOUT, "experiment": "f"})
        assert [stored.experiment for stored in store.runs()] == ["e", "e", "f"]


def test_a_run_that_cannot_be_kept_is_no_second_one(tmp_path: Path) -> None:
    about: dict[str, Any] = {**ABOUT, "experiment": None}
    with RunStore(tmp_path / "runs.sqlite") as store, pytest.raises(StoreError, match="NOT NULL"):
        store.add(make_run(), **about)


def test_a_run_that_was_stopped_on_request_is_not_kept(tmp_path: Path) -> None:
    with RunStore(tmp_path / "runs.sqlite") as store:
        assert not store.add(make_run(stop="stopped"), **ABOUT)
        assert list(store.runs()) == []


def test_a_run_is_found_by_its_key_under_its_own_label_alone(tmp_path: Path) -> None:
    key = run_key(make_run().request, **MACHINE)
    with RunStore(tmp_path / "runs.sqlite") as store:
        store.add(make_run(), **ABOUT)
        assert store.get(key, experiment="e", label="arm") is not None
        assert store.get(key, experiment="e", label="other arm") is None
        assert store.get(key, experiment="f", label="arm") is None


def test_the_key_tells_apart_all_that_decides_a_run_and_nothing_else() -> None:
    request = make_run().request
    key = run_key(request, **MACHINE)
    assert run_key(replace(request, label="renamed"), **MACHINE) == key
    same = replace(request, sampling=replace(request.sampling, repeat_penalty=1))
    assert run_key(same, **MACHINE) == key
    others = [
        run_key(replace(request, seed=2), **MACHINE),
        run_key(replace(request, n_predict=65), **MACHINE),
        run_key(replace(request, prompt="prompt "), **MACHINE),
        run_key(replace(request, sampling=Sampling(temp=0.7, top_k=40)), **MACHINE),
        run_key(request, **{**MACHINE, "build": "b1"}),
        run_key(request, **{**MACHINE, "model_sha256": "cd" * 32}),
        run_key(request, **{**MACHINE, "settings": {"n_ctx": 4096}}),
    ]
    assert len({key, *others}) == 8


WRITER = """
import sys
from tests.test_runs import ABOUT, make_run
from qwqlab.experiments import RunStore
path, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with RunStore(path) as store:
    for seed in range(first, first + count):
        store.add(make_run(seed, text="x" * 2000), **ABOUT)
        print(seed, flush=True)
"""


def start_writer(path: Path, first: int, count: int) -> subprocess.Popen[str]:
    folder = Path(__file__).resolve().parent.parent
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(first), str(count)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_killed_process_loses_nothing_that_it_had_added(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    writer = start_writer(path, 0, 1_000_000)
    assert writer.stdout is not None
    acknowledged = [int(writer.stdout.readline()) for _ in range(40)]
    writer.send_signal(signal.SIGKILL)
    acknowledged.extend(int(line) for line in writer.stdout.read().split())
    writer.wait()
    with RunStore(path) as store:
        seeds = [stored.run.request.seed for stored in store.runs()]
        assert set(acknowledged) <= set(seeds)
        assert len(seeds) <= len(acknowledged) + 1
        assert store.add(make_run(2_000_000), **ABOUT)
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_several_processes_write_to_one_store(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    writers = [start_writer(path, 100 * n, 15) for n in range(2)]
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    with RunStore(path) as store:
        assert len(list(store.runs())) == 30


def test_a_thread_adds_while_another_reads(tmp_path: Path) -> None:
    failures: list[StoreError] = []
    with RunStore(tmp_path / "runs.sqlite") as store:

        def add(first: int) -> None:
            try:
                for seed in range(first, first + 20):
                    store.add(make_run(seed), **ABOUT)
            except StoreError as error:
                failures.append(error)

        threads = [threading.Thread(target=add, args=(100 * n,)) for n in range(3)]
        for thread in threads:
            thread.start()
        counts = [len(list(store.runs())) for _ in range(20)]
        for thread in threads:
            thread.join()
        assert failures == []
        assert counts == sorted(counts)
        assert len({stored.run.request.seed for stored in store.runs()}) == 60


def test_a_store_is_one_file_that_can_be_copied_while_it_is_open(tmp_path: Path) -> None:
    with RunStore(tmp_path / "runs.sqlite") as store:
        store.add(make_run(), **ABOUT)
        assert [path.name for path in tmp_path.iterdir()] == ["runs.sqlite"]
        copy = shutil.copy(tmp_path / "runs.sqlite", tmp_path / "copy.sqlite")
    with RunStore(copy) as store:
        assert len(list(store.runs())) == 1


def test_a_file_that_is_not_a_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("These are my notes, and they are longer than a header.\n" * 40)
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    for path in (text, other):
        before = path.read_bytes()
        with pytest.raises(StoreError, match=rf"{path.name} is not a store of runs: move it"):
            RunStore(path)
        assert path.read_bytes() == before
    with pytest.raises(StoreError, match="cannot be opened"):
        RunStore(tmp_path)


def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    RunStore(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    with pytest.raises(StoreError, match=r"version 7, and this qwqlab reads version 4: move"):
        RunStore(path)


def test_a_damaged_run_is_named_and_keeps_no_other_from_an_export(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    with RunStore(path) as store:
        for seed in (1, 2, 3):
            store.add(make_run(seed), **ABOUT)
        assert store.to_frame()["seed"].tolist() == [1, 2, 3]
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE runs SET run = substr(run, 9) WHERE id = 2")
        connection.close()
        with pytest.raises(StoreError, match=r"runs\.sqlite cannot be read: run 2 is damaged"):
            list(store.runs())
        damaged: list[str] = []
        store.export_json(tmp_path / "runs.json", damaged=damaged)
        exported = json.loads((tmp_path / "runs.json").read_text(encoding="utf-8"))
        assert [each["run"]["request"]["seed"] for each in exported] == [1, 3]
        assert len(damaged) == 1


def change(path: Path, *statements: str, values: tuple[object, ...] = ()) -> None:
    """What another program, or somebody else, does to a store."""
    with sqlite3.connect(path) as connection:
        for statement in statements:
            connection.execute(statement, values)
    connection.close()


def check_flipped_bits(path: Path, n: int) -> None:
    """Runs that come out of a store in which one bit is flipped are runs that went in."""
    with RunStore(path) as store:
        for seed in range(3):
            store.add(make_run(seed, text="word " * 200), **ABOUT)
        runs = {stored.key: stored for stored in store.runs()}
    chance, before, noticed = random.Random(3407), path.read_bytes(), 0
    for _ in range(n):
        place, bit = chance.randrange(len(before)), 1 << chance.randrange(8)
        after = bytearray(before)
        after[place] ^= bit
        path.write_bytes(after)
        damaged: list[str] = []
        try:
            with RunStore(path) as store:
                for stored in store.runs(damaged=damaged):
                    assert runs.get(stored.key) == stored, (place, bit)
        except StoreError:
            noticed += 1
        else:
            noticed += bool(damaged)
    print(f"seed 3407, {n} bits of {len(before):,} bytes, {noticed} noticed")
    assert noticed > n / 5


def test_a_flipped_bit_is_never_read_as_a_run(tmp_path: Path) -> None:
    check_flipped_bits(tmp_path / "runs.sqlite", 150)


@pytest.mark.nightly
def test_thousands_of_flipped_bits_are_never_read_as_runs(tmp_path: Path) -> None:
    check_flipped_bits(tmp_path / "runs.sqlite", 5000)


def test_a_store_without_checksums_is_read_and_gets_them_with_its_next_run(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    with RunStore(path) as store:
        store.add(make_run(1), **ABOUT)
    strip = "UPDATE runs SET source = json_remove(source, '$.checksum')"
    recount = "UPDATE runs SET metrics = replace(metrics, '\"loop\": false', '\"loop\": true')"
    change(path, strip, recount, "PRAGMA user_version = 2")
    before = path.read_bytes()
    with RunStore(path) as store:
        (stored,) = store.runs()
        assert stored.run == make_run(1)
        assert not stored.metrics.loop  # it is counted anew
        assert path.read_bytes() == before
        store.add(make_run(2), **ABOUT)
    with RunStore(path) as store:
        assert [stored.run.request.seed for stored in store.runs()] == [1, 2]
    change(path, "UPDATE runs SET run = replace(run, 'hello', 'jello')")
    with RunStore(path) as store, pytest.raises(StoreError, match=r"run 2 is damaged.*checksum"):
        list(store.runs())


def test_a_run_that_was_counted_by_older_rules_is_counted_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "runs.sqlite"
    monkeypatch.setattr(store_module, "_checksum", lambda *_: "right")
    with RunStore(path) as store:
        store.add(make_run(text="<think>\nSo"), **ABOUT)
    old = "UPDATE runs SET metrics = json_remove(json_set(metrics, '$.n_tokens', 9), '$.unclosed')"
    change(path, old, "PRAGMA user_version = 3")
    with RunStore(path) as store:
        (stored,) = store.runs()
    assert stored.metrics.unclosed and stored.metrics.n_tokens == 3


DEEP = "[" * 100_000 + "]" * 100_000
# What is put in place of a text of the columns `run`, `metrics` and `source`.
HOSTILE = {
    "a run that is deep": ("{", f"[{DEEP}, {{"),
    "settings that are deep": ('"n_ctx": 2048', f'"n_ctx": {DEEP}'),
    "a run of empty objects": ('"tokens": [', f'"tokens": [{"{}, " * 100_000}'),
    "a run that is large": ('"text": "', '"text": "' + "x" * MOST_BYTES),
    "a text that is a number": ('"text": "hello"', '"text": 5'),
    "tokens that are texts": ("[5, 6,", '["5", 6,'),
    "a sampling that is no setting": ('"temp": 0.6', '"temp": [0.6]'),
    "a number of 5,000 digits": ("49151", "9" * 5000),
    "a count that is a list": ('"n_tokens": 3', '"n_tokens": [3]'),
    "a field that nobody knows": ('"command"', '"\\u001b[2J": 1, "command"'),
    "a command that is null": ('"llama-completion -s 1"', "null"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_whatever_a_row_holds_it_is_a_damaged_run_and_no_more(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "runs.sqlite"
    # Somebody who changes a row gives it the right checksum.
    monkeypatch.setattr(store_module, "_checksum", lambda *_: "right")
    with RunStore(path) as store:
        for seed in (1, 2):
            store.add(make_run(seed), **ABOUT)
    for column in ("run", "metrics", "source"):
        put = f"UPDATE runs SET {column} = replace({column}, ?, ?) WHERE id = 1"
        change(path, put, values=HOSTILE[kind])
    with RunStore(path) as store:
        with pytest.raises(StoreError, match="run 1 is damaged") as error:
            list(store.runs())
        assert str(error.value).endswith("); `qwqlab export` writes the others.")
        assert str(error.value).isprintable()
        assert len(str(error.value)) < 500 + len(str(path))
        for write in (store.export_json, store.export_csv):
            damaged: list[str] = []
            exported = write(tmp_path / "runs.out", damaged=damaged).read_text(encoding="utf-8")
            assert len(damaged) == 1
            assert exported.count("llama-completion -s 1") == 1


@pytest.mark.parametrize(
    "statements",
    [
        [
            "ALTER TABLE runs RENAME TO old",
            "CREATE VIEW runs AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) "
            "SELECT id, '' experiment, '' label, '' key, '' run, '' metrics, '' source FROM n",
        ],
        ["CREATE TRIGGER t AFTER INSERT ON runs BEGIN DELETE FROM runs; END"],
        ["ALTER TABLE runs ADD COLUMN x AS (hex(zeroblob(500000000)))"],
        ["CREATE INDEX i ON runs (hex(zeroblob(length(run) * 100000)))", "DROP INDEX i",
         "CREATE VIEW v AS SELECT 1"],
    ],
)  # fmt: skip
def test_a_store_in_which_something_could_run_is_refused(
    statements: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "runs.sqlite"
    RunStore(path).close()
    change(path, *statements)
    with pytest.raises(StoreError, match="is not a store of runs"):
        RunStore(path)


def test_an_export_holds_one_run_at_a_time(tmp_path: Path) -> None:
    with RunStore(tmp_path / "runs.sqlite") as store:
        for seed in range(20):
            store.add(make_run(seed, text=" " * 100_000), **ABOUT)
        tracemalloc.start()
        store.export_json(tmp_path / "runs.json")
        store.export_csv(tmp_path / "runs.csv")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2_000_000
    assert len(json.loads((tmp_path / "runs.json").read_bytes())) == 20


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "deep" / "runs.sqlite")
    store.close()
    with pytest.raises(StoreError, match="closed"):
        list(store.runs())


def test_a_spreadsheet_runs_no_formula_that_a_model_wrote(tmp_path: Path) -> None:
    texts = ["=1+1", "@x", "-2", "+3", " =1", "plain", 'a,b\n"c"']
    with RunStore(tmp_path / "runs.sqlite") as store:
        for seed, text in enumerate(texts):
            store.add(make_run(seed, text=text), **ABOUT)
        path = store.export_csv(tmp_path / "runs.csv")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["samplers"].startswith("penalties;dry;")
    assert (rows[0]["temp"], rows[0]["escapes"], rows[0]["valid_code"]) == ("0.6", "1", "False")
    cells = [row["text"] for row in rows]
    assert cells == ["'=1+1", "'@x", "'-2", "'+3", "' =1", "plain", 'a,b\n"c"']
    assert [each.name for each in tmp_path.iterdir() if each.name.endswith(".part")] == []
