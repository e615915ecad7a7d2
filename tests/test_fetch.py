"""Fetching against a real server on the loopback interface that behaves and misbehaves as told."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_server import COMMIT, Hub, git_sha1, serve_hub
from huggingface_hub import constants, hf_hub_download, snapshot_download
from malformed import sound

from qwqlab import fetch, hashes, hub_fetch, paths
from qwqlab.download import FetchStoppedError
from qwqlab.entries import Repository
from qwqlab.errors import FetchError, ModelFileError
from qwqlab.hub import Hub as HubClient
from qwqlab.hub_fetch import Snapshot, fetch_repository
from qwqlab.progress import PrintedProgress
from qwqlab.web import Patience, read_retry_after

REPO = "someone/model-GGUF"
NAME = "model-Q4_K_M.gguf"
BIG = random.Random(1).randbytes(1_000_000)
SMALL = b'{"model_type": "qwen2"}'
QUICK = Patience(tries=4, wait=0.01, longest_wait=0.02, longest_retry_after=3, timeout=2)
ONE = Repository(REPO, (NAME,))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QWQLAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    return tmp_path


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub() as server:
        server.add(REPO, {NAME: BIG, "config.json": SMALL, "deep/er/notes.txt": b"n" * 50})
        yield server


@pytest.fixture
def client(hub: Hub, home: Path) -> HubClient:
    return HubClient(hub.endpoint, home / "cache")


def bring(client: HubClient, repository: Repository = ONE, **options: object) -> Snapshot:
    settings: dict[str, object] = {"patience": QUICK, "say": lambda line: None}
    return fetch_repository(
        repository,
        hub=client,
        progress=lambda done, total, rate: None,
        **{**settings, **options},  # type: ignore[arg-type]
    )


def part_of(client: HubClient, data: bytes = BIG) -> Path:
    import hashlib

    name = f"{hashlib.sha256(data).hexdigest()}.incomplete"
    return client.folder(ONE) / "blobs" / name


def refusal(call: Callable[[], object], kind: type[Exception] = FetchError) -> str:
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


# What is brought, and where it lies


def test_a_file_lands_in_the_hubs_own_cache_layout(client: HubClient) -> None:
    found = bring(client)
    assert found.paths[0].read_bytes() == BIG
    folder = client.cache / "models--someone--model-GGUF"
    assert found.folder == folder / "snapshots" / COMMIT
    assert (folder / "refs" / "main").read_text() == COMMIT
    link = found.paths[0]
    assert link.is_symlink()
    assert not link.readlink().is_absolute()
    assert link.resolve().parent == (folder / "blobs").resolve()
    assert hashes.sha256_of(link.resolve()) == link.resolve().name
    assert not list(folder.rglob("*.incomplete"))


def test_huggingface_hub_finds_what_the_lab_fetched(client: HubClient, hub: Hub) -> None:
    every = Repository(REPO, ("*",))
    ours = bring(client, every)
    theirs = snapshot_download(REPO, cache_dir=client.cache, local_files_only=True)
    assert Path(theirs) == ours.folder
    before = len(hub.log)
    again = hf_hub_download(REPO, NAME, cache_dir=client.cache, endpoint=hub.endpoint)
    assert Path(again) == ours.folder / NAME
    assert [(seen.server, seen.method) for seen in hub.log[before:]] == [("hub", "HEAD")]


def test_the_lab_finds_what_huggingface_hub_fetched(client: HubClient, hub: Hub) -> None:
    theirs = hf_hub_download(REPO, NAME, cache_dir=client.cache, endpoint=hub.endpoint)
    before = len(hub.ranges())
    assert before == 1
    ours = bring(client)
    assert ours.paths == (Path(theirs),)
    assert len(hub.ranges()) == before


def test_a_blob_of_the_right_size_with_wrong_bytes_is_fetched_again(
    client: HubClient, hub: Hub
) -> None:
    blob = bring(client).paths[0].resolve()
    damaged = bytearray(BIG)
    damaged[5] ^= 1
    blob.write_bytes(damaged)
    said: list[str] = []
    assert bring(client, say=said.append).paths[0].read_bytes() == BIG
    assert "is damaged" in said[0]
    assert len(hub.ranges()) == 2


def test_patterns_choose_from_the_listing_and_small_files_are_checked_too(
    client: HubClient,
) -> None:
    found = bring(client, Repository(REPO, ("*.json", "deep/*")))
    assert set(found.files) == {"config.json", "deep/er/notes.txt"}
    assert found.paths[0].resolve().name == git_sha1(SMALL)
    assert (found.folder / "deep" / "er" / "notes.txt").read_bytes() == b"n" * 50


def test_a_pattern_that_nothing_fits_is_named(client: HubClient) -> None:
    message = refusal(lambda: bring(client, Repository(REPO, ("*Q9_X*",))))
    assert "has no file like *Q9_X*" in message


def test_of_a_model_listed_under_two_spellings_one_complete_set_is_taken(
    client: HubClient, hub: Hub
) -> None:
    names = [f"BF16/m{dot}BF16-0000{n}-of-00002.gguf" for dot in "-." for n in (1, 2)]
    hub.add(REPO, {name: random.Random(name).randbytes(3000) for name in names[1:]})
    found = bring(client, Repository(REPO, ("BF16/*.gguf",)))
    assert found.files == tuple(names[2:])
    hub.add(REPO, dict.fromkeys(names[1:2], b"x" * 2000))
    other = HubClient(client.endpoint, client.cache.parent / "other")
    message = refusal(lambda: bring(other, Repository(REPO, ("BF16/*.gguf",))))
    assert "has 2 parts, of which 1 exist" in message


@pytest.mark.parametrize("name", ["../../escape", "/etc/passwd", "a/../../b", "a\\b", "a//b"])
def test_a_listing_cannot_write_outside_the_cache(client: HubClient, hub: Hub, name: str) -> None:
    hub.rename = {"config.json": name}
    assert "unsafe file name" in refusal(lambda: bring(client, Repository(REPO, ("*",))))
    assert not client.cache.exists()


# Going on where it stopped


CHILD = """
import sys
from qwqlab.entries import Repository
from qwqlab.hub_fetch import fetch_repository
print(fetch_repository(Repository(sys.argv[1], (sys.argv[2],))).paths[0])
"""


def child(client: HubClient, **environment: str) -> subprocess.Popen[str]:
    settings = {"HF_ENDPOINT": client.endpoint, "HF_HUB_CACHE": str(client.cache), **environment}
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, REPO, NAME],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **settings},
    )


def test_a_download_that_is_killed_goes_on_in_a_new_process(client: HubClient, hub: Hub) -> None:
    hub.faults.stall_after = [400_000]
    first = child(client)
    part = part_of(client)
    while not (part.exists() and part.stat().st_size == 400_000):
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.01)
    first.kill()
    first.communicate()
    assert not part.with_suffix("").exists()
    second = child(client)
    out, err = second.communicate()
    assert second.returncode == 0, err
    assert Path(out.strip()).read_bytes() == BIG
    assert hub.ranges() == [None, "bytes=400000-"]
    assert not part.exists()


def test_a_dropped_connection_is_taken_up_where_it_dropped(client: HubClient, hub: Hub) -> None:
    hub.faults.drop_after = [300_000, 200_000]
    said: list[str] = []
    assert bring(client, say=said.append).paths[0].read_bytes() == BIG
    assert hub.ranges() == [None, "bytes=300000-", "bytes=500000-"]
    assert len(said) == 2


def test_a_line_that_drops_often_is_not_given_up_while_it_moves(
    client: HubClient, hub: Hub
) -> None:
    hub.faults.drop_after = [70_000] * 12
    assert bring(client).paths[0].read_bytes() == BIG
    assert len(hub.ranges()) == 13


def test_a_line_that_never_moves_is_given_up_and_the_part_is_kept(
    client: HubClient, hub: Hub
) -> None:
    hub.faults.drop_after = [500_000] + [0] * 20
    message = refusal(lambda: bring(client))
    assert "after 4 tries" in message
    assert NAME in message
    assert part_of(client).stat().st_size == 500_000
    hub.faults.drop_after = []
    bring(client)
    assert hub.ranges()[-1] == "bytes=500000-"


def test_a_server_that_ignores_ranges_starts_the_file_afresh(client: HubClient, hub: Hub) -> None:
    hub.faults.drop_after = [300_000]
    hub.faults.ignore_range = True
    seen: list[tuple[int, int]] = []
    found = fetch_repository(
        ONE,
        hub=client,
        progress=lambda done, total, rate: seen.append((done, total)),
        say=lambda line: None,
        patience=QUICK,
    )
    assert found.paths[0].read_bytes() == BIG
    assert hub.ranges() == [None, "bytes=300000-"]
    assert seen[-1] == (len(BIG), len(BIG))


def test_a_server_that_answers_another_range_is_not_believed(client: HubClient, hub: Hub) -> None:
    hub.faults.drop_after = [300_000]
    hub.faults.wrong_range = True
    assert "to a request for byte 300000 onwards" in refusal(lambda: bring(client))
    assert part_of(client).read_bytes() == BIG[:300_000]


def test_a_part_that_is_complete_or_too_long_is_settled_by_its_hash(
    client: HubClient, hub: Hub
) -> None:
    part = part_of(client)
    part.parent.mkdir(parents=True)
    part.write_bytes(BIG)
    assert bring(client).paths[0].read_bytes() == BIG
    assert hub.ranges() == []
    part.with_suffix("").unlink()
    part.write_bytes(BIG + b"more")
    assert bring(client).paths[0].read_bytes() == BIG
    assert hub.ranges() == [None]


def test_a_wrong_hash_throws_the_file_away_and_names_both(client: HubClient, hub: Hub) -> None:
    hub.faults.flip_byte = 777
    message = refusal(lambda: bring(client))
    stated = part_of(client).stem
    assert message.count(stated) == 1
    assert "thrown away: its hash is " in message
    assert not part_of(client).exists()
    assert not (client.folder(ONE) / "blobs" / stated).exists()
    assert not (client.folder(ONE) / "snapshots").exists()
    hub.faults.flip_byte = None
    assert bring(client).paths[0].read_bytes() == BIG


def test_a_flipped_byte_in_a_small_file_is_noticed_too(client: HubClient, hub: Hub) -> None:
    hub.faults.flip_byte = 3
    message = refusal(lambda: bring(client, Repository(REPO, ("config.json",))))
    assert git_sha1(SMALL) in message


def test_two_processes_that_fetch_the_same_file_ask_for_it_once(
    client: HubClient, hub: Hub
) -> None:
    both = [child(client), child(client)]
    for process in both:
        out, err = process.communicate()
        assert process.returncode == 0, err
        assert Path(out.strip()).read_bytes() == BIG
    assert len(hub.ranges()) == 1


# Stopping, progress, disk


def test_stop_leaves_the_part_and_the_next_fetch_goes_on(client: HubClient, hub: Hub) -> None:
    hub.faults.stall_after = [400_000]
    stop = threading.Event()

    def watch_part() -> None:
        while not (part_of(client).exists() and part_of(client).stat().st_size == 400_000):
            time.sleep(0.01)
        stop.set()

    thread = threading.Thread(target=watch_part)
    thread.start()
    # The line is silent when the stop comes, and the timeout is long.
    patient = dataclasses.replace(QUICK, timeout=600)
    message = refusal(lambda: bring(client, stop=stop, patience=patient), FetchStoppedError)
    thread.join()
    assert "Stopped with 400000 of 1000000 bytes" in message
    bring(client)
    assert hub.ranges() == [None, "bytes=400000-"]


def test_a_progress_callback_that_returns_false_stops_the_fetch(client: HubClient) -> None:
    with pytest.raises(FetchStoppedError):
        fetch_repository(ONE, hub=client, progress=lambda done, total, rate: False, patience=QUICK)
    assert part_of(client).stat().st_size < len(BIG)


def test_progress_rises_to_the_total_of_all_files(client: HubClient) -> None:
    seen: list[tuple[int, int, float]] = []
    fetch_repository(
        Repository(REPO, ("*",)),
        hub=client,
        progress=lambda *values: seen.append(values),
        patience=QUICK,
    )
    done = [values[0] for values in seen]
    total = len(BIG) + len(SMALL) + 50
    assert done == sorted(done)
    assert seen[-1][:2] == (total, total)
    assert seen[-1][2] > 0


def test_the_default_progress_prints_a_line_now_and_then(
    client: HubClient, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch_repository(ONE, hub=client, patience=QUICK)
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert 1 <= len(lines) <= 5
    assert lines[-1] == f"{REPO}: 100 %, 1.00 of 1.00 MB"
    printed = PrintedProgress("m", sys.stderr)
    for step in range(1000):
        printed(step, 1000, 10.0)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_full_disk_is_told_before_anything_is_fetched(
    client: HubClient, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.faults.drop_after = [400_000] + [0] * 9
    refusal(lambda: bring(client))
    free = shutil.disk_usage("/")._replace(free=599_999)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    before = len(hub.ranges())
    message = refusal(lambda: bring(client))
    assert "needs 0.6 MB more" in message
    assert "HF_HOME" in message
    assert len(hub.ranges()) == before
    hub.faults.drop_after = []
    # What the part holds already needs no room.
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free._replace(free=600_000))
    assert bring(client).paths[0].read_bytes() == BIG


def test_a_cache_that_cannot_be_written_is_named(client: HubClient) -> None:
    blocked = dataclasses.replace(client, cache=client.cache.parent / "file")
    blocked.cache.write_text("not a folder")
    assert "cannot be written" in refusal(lambda: bring(blocked))


# Access, limits, the environment


def test_the_token_goes_to_the_hub_and_to_no_other_host(client: HubClient, hub: Hub) -> None:
    hub.token = "hf_secret"
    bring(dataclasses.replace(client, token="hf_secret"))
    by_server: dict[str, set[str | None]] = {"hub": set(), "network": set()}
    for seen in hub.log:
        by_server[seen.server].add(seen.headers.get("authorization"))
        if seen.server == "network":
            assert "hf_secret" not in str(seen)
    assert by_server == {"hub": {"Bearer hf_secret"}, "network": {None}}


def test_without_a_token_the_refusal_says_to_set_one(client: HubClient, hub: Hub) -> None:
    hub.token = "hf_secret"
    assert "asks for a token (HTTP 401): set HF_TOKEN" in refusal(lambda: bring(client))


def test_a_wrong_token_or_an_unaccepted_licence_is_named(client: HubClient, hub: Hub) -> None:
    hub.token = "hf_secret"
    wrong = dataclasses.replace(client, token="hf_other")
    message = refusal(lambda: bring(wrong))
    assert "is gated (HTTP 403): accept its licence on its page." in message
    assert "hf_other" not in message
    hub.token, hub.faults.gated = None, True
    message = refusal(lambda: bring(client))
    assert "accept its licence on its page, then set HF_TOKEN" in message


@pytest.mark.parametrize(
    ("repository", "says"),
    [
        (Repository("nobody/nothing", ("*",)), "no repository nobody/nothing"),
        (Repository(REPO, ("*",), revision="v9"), f"{REPO} has no revision v9"),
    ],
)
def test_what_is_not_found_is_named(client: HubClient, repository: Repository, says: str) -> None:
    message = refusal(lambda: bring(client, repository))
    assert says in message
    assert "HTTP 404" in message


def test_a_file_that_vanished_after_the_listing_is_named(client: HubClient, hub: Hub) -> None:
    hub.rename = {NAME: "gone.gguf"}
    message = refusal(lambda: bring(client, Repository(REPO, ("gone.gguf",))))
    assert f"no gone.gguf of {REPO} at revision main" in message


def test_the_wait_that_a_server_asks_for_is_kept(client: HubClient, hub: Hub) -> None:
    hub.faults.answers = [(429, {"Retry-After": "1"})]
    hub.faults.listing = [(503, {})]
    said: list[str] = []
    start = time.monotonic()
    bring(client, say=said.append)
    assert time.monotonic() - start >= 1
    assert "HTTP 503" in said[0]
    assert said[1] == "the server limits the rate (HTTP 429): trying again in 1 s"


def test_a_server_that_keeps_limiting_is_given_up(client: HubClient, hub: Hub) -> None:
    hub.faults.answers = [(429, {"Retry-After": "0"})] * 20
    assert "after 4 tries: the server limits the rate" in refusal(lambda: bring(client))
    assert len(hub.ranges()) == 4
    hub.faults.answers = [(429, {"Retry-After": "7200"})]
    assert "asks to wait 7200 s" in refusal(lambda: bring(client))
    assert len(hub.ranges()) == 5


def test_a_retry_after_may_be_a_date() -> None:
    import email.utils

    assert read_retry_after(email.utils.formatdate(time.time() + 30)) == pytest.approx(30, abs=2)
    assert read_retry_after(email.utils.formatdate(time.time() - 30)) == 0


def test_a_hub_that_cannot_be_reached_is_named(client: HubClient) -> None:
    nowhere = dataclasses.replace(client, endpoint="http://127.0.0.1:9")
    assert "127.0.0.1:9" in refusal(lambda: bring(nowhere))
    nonsense = dataclasses.replace(client, endpoint="hub.example")
    assert "HF_ENDPOINT" in refusal(lambda: bring(nonsense))


def test_an_answer_that_is_no_listing_is_refused(client: HubClient, hub: Hub) -> None:
    hub.faults.listing = [(200, {"Content-Type": "text/html"})]
    assert "is not JSON" in refusal(lambda: bring(client))


def test_offline_nobody_is_asked(client: HubClient, hub: Hub) -> None:
    offline = dataclasses.replace(client, offline=True)
    assert "HF_HUB_OFFLINE is set" in refusal(lambda: bring(offline))
    assert hub.log == []
    found = bring(client)
    before = len(hub.log)
    assert bring(offline) == found
    assert len(hub.log) == before
    found.paths[0].resolve().write_bytes(BIG[:-1] + b"?")
    assert "is damaged" in refusal(lambda: bring(offline))


def test_the_environment_decides_where_and_as_whom(client: HubClient, hub: Hub) -> None:
    hub.token = "hf_from_environment"
    elsewhere = client.cache.parent / "elsewhere"
    environment = {"HF_HOME": str(elsewhere), "HF_HUB_CACHE": str(elsewhere / "hub")}
    process = child(client, HF_TOKEN="hf_from_environment", **environment)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert Path(out.strip()).is_relative_to(elsewhere / "hub")
    before = len(hub.log)
    again = child(client, HF_HUB_OFFLINE="1", **environment)
    assert again.communicate()[0] == out
    assert len(hub.log) == before
    cold = child(client, HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(elsewhere / "cold"))
    assert "HF_HUB_OFFLINE is set" in cold.communicate()[1]
    assert len(hub.log) == before


# Names of the catalog


@pytest.fixture
def environment(client: HubClient, monkeypatch: pytest.MonkeyPatch) -> HubClient:
    """The loopback hub as what huggingface_hub read from the environment."""
    monkeypatch.setattr(constants, "ENDPOINT", client.endpoint)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(client.cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return client


def test_a_catalogued_quant_is_fetched_by_name_and_then_found_without_asking(
    environment: HubClient, hub: Hub
) -> None:
    hub.add("unsloth/QwQ-32B-GGUF", {"QwQ-32B-Q4_K_M.gguf": BIG, "QwQ-32B-Q2_K.gguf": BIG[1:]})
    message = refusal(lambda: fetch.model_path("QwQ-32B:Q4_K_M"))
    assert "`qwqlab fetch QwQ-32B:Q4_K_M` brings it (about 19.9 GB)" in message
    path = fetch.fetch("QwQ-32B:Q4_K_M", patience=QUICK)
    assert path.name == "QwQ-32B-Q4_K_M.gguf"
    assert path.read_bytes() == BIG
    before = len(hub.log)
    assert fetch.fetch("qwq-32b:q4_k_m") == path
    assert fetch.model_path("QwQ-32B:Q4_K_M") == path
    assert [entry.name for entry in fetch.list_local()] == ["QwQ-32B:Q4_K_M"]
    assert len(hub.log) == before
    assert fetch.fetch("QwQ-32B:Q4_K_M", refresh=True) == path
    assert len(hub.log) == before + 1


def test_a_split_model_gives_its_first_part_and_safetensors_their_folder(
    environment: HubClient, hub: Hub
) -> None:
    parts = {f"BF16/QwQ-32B.BF16-0000{n}-of-00002.gguf": BIG[n:] for n in (1, 2)}
    hub.add("unsloth/QwQ-32B-GGUF", parts)
    path = fetch.fetch("QwQ-32B:BF16", patience=QUICK)
    assert path.name == "QwQ-32B.BF16-00001-of-00002.gguf"
    assert sorted(file.name for file in path.parent.iterdir())[1].endswith("2-of-00002.gguf")
    names = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    index = b'{"weight_map": {"a": "%s", "b": "%s"}}' % (names[0].encode(), names[1].encode())
    files = {names[0]: BIG, names[1]: BIG[1:], "model.safetensors.index.json": index}
    hub.add("unsloth/QwQ-32B-unsloth-bnb-4bit", {**files, "README.md": b"not wanted"})
    folder = fetch.fetch("QwQ-32B:dynamic-4bit", patience=QUICK)
    assert sorted(file.name for file in folder.iterdir()) == sorted(files)
    assert fetch.model_path("QwQ-32B:dynamic-4bit") == folder
    (folder / "model.safetensors.index.json").resolve().write_text('{"weight_map": [1]}')
    assert fetch.model_path("QwQ-32B:dynamic-4bit") == folder
    (folder / "model.safetensors.index.json").resolve().write_bytes(index)
    (folder / names[1]).unlink()
    refusal(lambda: fetch.model_path("QwQ-32B:dynamic-4bit"))


def test_a_damaged_file_is_repaired_by_the_next_fetch(environment: HubClient, hub: Hub) -> None:
    hub.add("unsloth/QwQ-32B-GGUF", {"QwQ-32B-Q2_K.gguf": BIG})
    path = fetch.fetch("QwQ-32B:Q2_K", patience=QUICK)
    path.resolve().write_bytes(b"?" + BIG[1:])
    assert fetch.fetch("QwQ-32B:Q2_K", patience=QUICK).read_bytes() == BIG


def test_model_path_takes_paths_and_files_in_the_lab(home: Path) -> None:
    models = paths.models_dir()
    models.mkdir(parents=True)
    (models / "ladder-Q2_K.gguf").write_bytes(b"x")
    assert fetch.model_path("ladder-Q2_K") == models / "ladder-Q2_K.gguf"
    assert fetch.model_path("ladder-Q2_K.gguf") == models / "ladder-Q2_K.gguf"
    assert fetch.model_path(models / "ladder-Q2_K.gguf") == models / "ladder-Q2_K.gguf"
    assert "no file" in refusal(lambda: fetch.model_path("/nowhere/x.gguf"))
    assert "no file" in refusal(lambda: fetch.model_path("x.gguf"))
    assert "near it are smollm2-135m" in refusal(lambda: fetch.model_path("smollm2"))
    message = refusal(lambda: fetch.model_path("smollm2-135m"))
    assert "`qwqlab fetch smollm2-135m`" in message


def test_a_local_file_is_imported_checked_and_found_by_its_name(home: Path) -> None:
    source = home / "my model.gguf"
    source.write_bytes(sound().build())
    assert "cannot name a model" in refusal(lambda: fetch.import_local(source))
    path = fetch.import_local(source, "mine")
    assert path == paths.models_dir() / "mine.gguf"
    assert path.samefile(source)
    assert fetch.model_path("mine") == path
    assert fetch.import_local(source, "mine") == path
    other = home / "other.gguf"
    other.write_bytes(sound("qwen2").build())
    assert "is another file" in refusal(lambda: fetch.import_local(other, "mine"))
    for name in ("../up", "a/b", ".hidden"):
        assert "cannot name" in refusal(lambda name=name: fetch.import_local(other, name))  # type: ignore[misc]
    broken = home / "broken.gguf"
    broken.write_bytes(sound().build()[:-9])
    assert "is cut short" in refusal(lambda: fetch.import_local(broken), ModelFileError)
    assert not (paths.models_dir() / "broken.gguf").exists()


def test_a_file_on_another_disk_is_copied(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    source = home / "model.gguf"
    source.write_bytes(sound().build())
    path = fetch.import_local(source)
    assert not path.samefile(source)
    assert path.read_bytes() == source.read_bytes()
    assert [file.name for file in path.parent.glob("*.gguf*")] == ["model.gguf"]


def test_find_fetched_gives_nothing_for_an_empty_cache(client: HubClient) -> None:
    assert hub_fetch.find_fetched(ONE, client) is None
