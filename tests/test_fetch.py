"""Fetching against a real server on the loopback interface that behaves and misbehaves as told."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_server import COMMIT, Hub, git_sha1, serve_hub
from huggingface_hub import constants, hf_hub_download, snapshot_download
from malformed import sound

from qwqlab import files, paths
from qwqlab.errors import FetchError, ModelFileError
from qwqlab.models import Repository, downloads, fetch_repository, local

REPO = "someone/model-GGUF"
NAME = "model-Q4_K_M.gguf"
BIG = random.Random(1).randbytes(1_000_000)
SMALL = b'{"model_type": "qwen2"}'
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
def cache(hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, with the loopback hub as what huggingface_hub read from the environment."""
    monkeypatch.setattr(downloads, "_WAIT", 0.0)
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    template = f"{hub.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return home / "cache"


def part_of(cache: Path, data: bytes = BIG) -> Path:
    name = f"{hashlib.sha256(data).hexdigest()}.incomplete"
    return cache / "models--someone--model-GGUF" / "blobs" / name


def refusal(call: Callable[[], object], kind: type[Exception] = FetchError) -> str:
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


# What is brought, and where it lies


def test_a_file_lands_in_the_hubs_own_cache_layout(
    cache: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    found = fetch_repository(ONE)
    assert found.paths[0].read_bytes() == BIG
    folder = cache / "models--someone--model-GGUF"
    assert found.folder == folder / "snapshots" / COMMIT
    assert (folder / "refs" / "main").read_text() == COMMIT
    link = found.paths[0]
    assert not link.readlink().is_absolute()
    assert link.resolve().parent == (folder / "blobs").resolve()
    assert files.sha256_of(link.resolve()) == link.resolve().name
    assert not list(folder.rglob("*.incomplete"))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"{REPO}: 100%" in captured.err
    before = len(hub.ranges())
    assert fetch_repository(ONE) == found
    assert len(hub.ranges()) == before


def test_huggingface_hub_finds_what_the_lab_fetched(cache: Path, hub: Hub) -> None:
    ours = fetch_repository(Repository(REPO, ("*",)))
    theirs = snapshot_download(REPO, cache_dir=cache, local_files_only=True)
    assert Path(theirs) == ours.folder
    before = len(hub.log)
    again = hf_hub_download(REPO, NAME, cache_dir=cache, endpoint=hub.endpoint)
    assert Path(again) == ours.folder / NAME
    assert [(seen.server, seen.method) for seen in hub.log[before:]] == [("hub", "HEAD")]


def test_the_lab_finds_what_huggingface_hub_fetched_and_repairs_it(
    cache: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = Path(hf_hub_download(REPO, NAME, cache_dir=cache, endpoint=hub.endpoint))
    assert len(hub.ranges()) == 1
    assert fetch_repository(ONE).paths == (theirs,)
    assert len(hub.ranges()) == 1
    theirs.resolve().write_bytes(b"?" + BIG[1:])
    assert fetch_repository(ONE).paths[0].read_bytes() == BIG
    assert "is damaged" in capsys.readouterr().err
    assert len(hub.ranges()) == 2


def test_patterns_choose_from_the_listing(cache: Path) -> None:
    found = fetch_repository(Repository(REPO, ("*.json", "deep/*")))
    assert set(found.files) == {"config.json", "deep/er/notes.txt"}
    assert found.paths[0].resolve().name == git_sha1(SMALL)
    message = refusal(lambda: fetch_repository(Repository(REPO, ("*Q9_X*",))))
    assert "has no file like *Q9_X*" in message


def test_of_a_model_listed_under_two_spellings_one_complete_set_is_taken(
    cache: Path, hub: Hub
) -> None:
    names = [f"BF16/m{dot}BF16-0000{n}-of-00002.gguf" for dot in "-." for n in (1, 2)]
    hub.add(REPO, {name: random.Random(name).randbytes(3000) for name in names[1:]})
    found = fetch_repository(Repository(REPO, ("BF16/*.gguf",)))
    assert found.files == tuple(names[2:])
    hub.add("some/half", dict.fromkeys(names[1:2], b"x" * 2000))
    message = refusal(lambda: fetch_repository(Repository("some/half", ("BF16/*.gguf",))))
    assert "has 2 parts, of which 1 exist" in message


@pytest.mark.parametrize("name", ["../../escape", "/etc/passwd"])
def test_a_listing_cannot_write_outside_the_cache(cache: Path, hub: Hub, name: str) -> None:
    hub.rename = {"config.json": name}
    assert "unsafe file name" in refusal(lambda: fetch_repository(Repository(REPO, ("*",))))
    assert not cache.exists()


# Going on where it stopped


CHILD = """
import sys
from qwqlab.models import Repository, fetch_repository
print(fetch_repository(Repository(sys.argv[1], (sys.argv[2],))).paths[0])
"""


def child(hub: Hub, cache: Path, **environment: str) -> subprocess.Popen[str]:
    settings = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_CACHE": str(cache), **environment}
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, REPO, NAME],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **settings},
    )


def test_a_download_that_is_killed_goes_on_in_a_new_process(cache: Path, hub: Hub) -> None:
    hub.faults.stall_after = [400_000]
    first = child(hub, cache)
    part = part_of(cache)
    while not (part.exists() and part.stat().st_size == 400_000):
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.01)
    first.kill()
    first.communicate()
    assert not part.with_suffix("").exists()
    second = child(hub, cache)
    out, err = second.communicate()
    assert second.returncode == 0, err
    assert Path(out.strip()).read_bytes() == BIG
    assert hub.ranges() == ["bytes=0-", "bytes=400000-"]
    assert not part.exists()


def test_a_dropped_connection_is_taken_up_while_it_moves(
    cache: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.faults.drop_after = [100_000] * 9
    assert fetch_repository(ONE).paths[0].read_bytes() == BIG
    assert hub.ranges() == [f"bytes={have}-" for have in range(0, len(BIG), 100_000)]
    assert capsys.readouterr().err.count("trying again") == 9


def test_a_line_that_never_moves_is_given_up_and_the_part_is_kept(cache: Path, hub: Hub) -> None:
    hub.faults.drop_after = [500_000] + [0] * 20
    assert "run the same command to go on" in refusal(lambda: fetch_repository(ONE))
    assert len(hub.ranges()) == 5
    assert part_of(cache).stat().st_size == 500_000
    hub.faults.drop_after = []
    fetch_repository(ONE)
    assert hub.ranges()[-1] == "bytes=500000-"


def test_a_server_that_ignores_ranges_starts_the_file_afresh(cache: Path, hub: Hub) -> None:
    hub.faults.drop_after = [300_000]
    hub.faults.ignore_range = True
    assert fetch_repository(ONE).paths[0].read_bytes() == BIG
    assert hub.ranges() == ["bytes=0-", "bytes=300000-"]


def test_a_page_instead_of_the_file_leaves_the_part(cache: Path, hub: Hub) -> None:
    part = part_of(cache)
    part.parent.mkdir(parents=True)
    part.write_bytes(BIG[:300_000])
    hub.faults.answers = [(200, {})]
    assert "The server sends 0 bytes" in refusal(lambda: fetch_repository(ONE))
    assert part.read_bytes() == BIG[:300_000]


def test_a_wrong_hash_throws_the_file_away_and_names_both(cache: Path, hub: Hub) -> None:
    hub.faults.flip_byte = 7
    message = refusal(lambda: fetch_repository(ONE))
    stated = part_of(cache).stem
    assert message.count(stated) == 1
    assert "thrown away: its hash is " in message
    assert not list(part_of(cache).parent.iterdir())
    assert not (part_of(cache).parents[1] / "snapshots").exists()
    assert git_sha1(SMALL) in refusal(lambda: fetch_repository(Repository(REPO, ("config.json",))))
    hub.faults.flip_byte = None
    assert fetch_repository(ONE).paths[0].read_bytes() == BIG


def test_two_processes_that_fetch_the_same_file_ask_for_it_once(cache: Path, hub: Hub) -> None:
    both = [child(hub, cache), child(hub, cache)]
    for process in both:
        out, err = process.communicate()
        assert process.returncode == 0, err
        assert Path(out.strip()).read_bytes() == BIG
    assert len(hub.ranges()) == 1


def test_a_full_disk_is_told_before_anything_is_fetched(
    cache: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = part_of(cache)
    part.parent.mkdir(parents=True)
    part.write_bytes(BIG[:400_000])
    free = shutil.disk_usage("/")._replace(free=599_999)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    message = refusal(lambda: fetch_repository(ONE))
    assert "needs 0.6 MB more" in message
    assert "HF_HOME" in message
    assert hub.ranges() == []
    # What the part holds already needs no room.
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free._replace(free=600_000))
    assert fetch_repository(ONE).paths[0].read_bytes() == BIG


def test_a_cache_that_cannot_be_written_is_named(cache: Path) -> None:
    cache.write_text("not a folder")
    assert "cannot be written" in refusal(lambda: fetch_repository(ONE))


# Access, limits, the environment


def test_the_token_goes_to_the_hub_and_to_no_other_host(
    cache: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.token = "hf_secret"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch_repository(ONE)
    by_server: dict[str, set[str | None]] = {"hub": set(), "network": set()}
    for seen in hub.log:
        by_server[seen.server].add(seen.headers.get("authorization"))
        if seen.server == "network":
            assert "hf_secret" not in str(seen)
    assert by_server == {"hub": {"Bearer hf_secret"}, "network": {None}}


def test_a_missing_token_a_wrong_one_and_an_unaccepted_licence_are_named(
    cache: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.token = "hf_secret"
    message = refusal(lambda: fetch_repository(ONE))
    assert f"You may not read {REPO} (HTTP 401): set HF_TOKEN" in message
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    message = refusal(lambda: fetch_repository(ONE))
    assert "is gated (HTTP 403): accept its licence on its page." in message
    assert "hf_other" not in message
    monkeypatch.delenv("HF_TOKEN")
    hub.token, hub.faults.gated = None, True
    message = refusal(lambda: fetch_repository(ONE))
    assert "accept its licence on its page, then set HF_TOKEN" in message


def test_what_is_not_found_is_named(cache: Path, hub: Hub) -> None:
    hub.rename = {NAME: "gone.gguf"}
    for repository, says in {
        Repository("nobody/nothing", ("*",)): "no repository nobody/nothing",
        Repository(REPO, ("gone.gguf",)): f"no gone.gguf of {REPO}",
    }.items():
        message = refusal(lambda: fetch_repository(repository))  # noqa: B023
        assert says in message
        assert "HTTP 404" in message


def test_a_hub_that_is_busy_away_or_no_hub_is_named(
    cache: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.faults.answers = [(503, {})]
    assert "too busy" in refusal(lambda: fetch_repository(ONE))
    hub.faults.listing = [(429, {}), (200, {"Content-Type": "text/html"})]
    assert "HTTP 429" in refusal(lambda: fetch_repository(ONE))
    assert "is no listing" in refusal(lambda: fetch_repository(ONE))
    for endpoint in ("http://127.0.0.1:9", "hub.example"):
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        message = refusal(lambda: fetch_repository(ONE))
        assert endpoint in message and "HF_ENDPOINT" in message


def test_the_environment_decides_where_and_as_whom_and_offline_nobody_is_asked(
    cache: Path, hub: Hub
) -> None:
    hub.token = "hf_from_environment"
    elsewhere = cache.parent / "elsewhere"
    environment = {"HF_HOME": str(elsewhere), "HF_HUB_CACHE": str(elsewhere / "hub")}
    process = child(hub, cache, HF_TOKEN="hf_from_environment", **environment)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert Path(out.strip()).is_relative_to(elsewhere / "hub")
    before = len(hub.log)
    environment["HF_HUB_OFFLINE"] = "1"
    assert child(hub, cache, **environment).communicate()[0] == out
    Path(out.strip()).resolve().write_bytes(BIG[:-1] + b"?")
    err = child(hub, cache, **environment).communicate()[1]
    assert f"is not complete in {elsewhere / 'hub'}, and HF_HUB_OFFLINE is set" in err
    assert len(hub.log) == before


# Names of the catalog


def test_a_catalogued_quant_is_fetched_by_name_and_then_found_without_asking(
    cache: Path, hub: Hub
) -> None:
    hub.add("unsloth/QwQ-32B-GGUF", {"QwQ-32B-Q4_K_M.gguf": BIG, "QwQ-32B-Q2_K.gguf": BIG[1:]})
    message = refusal(lambda: local.model_path("QwQ-32B:Q4_K_M"))
    assert "`qwqlab fetch QwQ-32B:Q4_K_M` downloads it (about 19.9 GB)" in message
    path = local.fetch("QwQ-32B:Q4_K_M")
    assert path.name == "QwQ-32B-Q4_K_M.gguf"
    assert path.read_bytes() == BIG
    before = len(hub.log)
    assert local.fetch("qwq-32b:q4_k_m") == path
    assert local.model_path("QwQ-32B:Q4_K_M") == path
    assert [entry.name for entry in local.list_local()] == ["QwQ-32B:Q4_K_M"]
    assert len(hub.log) == before
    path.resolve().write_bytes(b"?" + BIG[1:])
    assert local.fetch("QwQ-32B:Q4_K_M").read_bytes() == BIG


def test_a_catalogued_hash_is_held_against_what_the_hub_sends(cache: Path, hub: Hub) -> None:
    name = "Qwen2.5-Coder-0.5B-Instruct"
    hub.add(f"Qwen/{name}-GGUF", {f"{name.lower()}-q4_k_m.gguf": BIG})
    message = refusal(lambda: local.fetch(f"{name}:Q4_K_M"))
    assert "now holds another file than the catalog's" in message


def test_a_split_model_gives_its_first_part_and_safetensors_their_folder(
    cache: Path, hub: Hub
) -> None:
    parts = {f"BF16/QwQ-32B.BF16-0000{n}-of-00002.gguf": BIG[n:] for n in (1, 2)}
    hub.add("unsloth/QwQ-32B-GGUF", parts)
    path = local.fetch("QwQ-32B:BF16")
    assert path.name == "QwQ-32B.BF16-00001-of-00002.gguf"
    assert sorted(file.name for file in path.parent.iterdir())[1].endswith("2-of-00002.gguf")
    names = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    index = b'{"weight_map": {"a": "%s", "b": "%s"}}' % (names[0].encode(), names[1].encode())
    files = {names[0]: BIG, names[1]: BIG[1:], "model.safetensors.index.json": index}
    hub.add("unsloth/QwQ-32B-unsloth-bnb-4bit", {**files, "README.md": b"not wanted"})
    folder = local.fetch("QwQ-32B:dynamic-4bit")
    assert sorted(file.name for file in folder.iterdir()) == sorted(files)
    assert local.model_path("QwQ-32B:dynamic-4bit") == folder
    (folder / names[1]).unlink()
    refusal(lambda: local.model_path("QwQ-32B:dynamic-4bit"))


def test_model_path_takes_paths_and_files_in_the_lab(home: Path) -> None:
    models = paths.models_dir()
    models.mkdir(parents=True)
    (models / "ladder-Q2_K.gguf").write_bytes(b"x")
    assert local.model_path("ladder-Q2_K") == models / "ladder-Q2_K.gguf"
    assert local.model_path("ladder-Q2_K.gguf") == models / "ladder-Q2_K.gguf"
    assert local.model_path(models / "ladder-Q2_K.gguf") == models / "ladder-Q2_K.gguf"
    assert "no file" in refusal(lambda: local.model_path("/nowhere/x.gguf"))
    assert "no file" in refusal(lambda: local.model_path("x.gguf"))
    assert "near it are smollm2-135m" in refusal(lambda: local.model_path("smollm2"))
    message = refusal(lambda: local.model_path("smollm2-135m"))
    assert "`qwqlab fetch smollm2-135m`" in message


def test_a_local_file_is_imported_checked_and_found_by_its_name(home: Path) -> None:
    source = home / "my model.gguf"
    source.write_bytes(sound().build())
    assert "cannot name a model" in refusal(lambda: local.import_local(source))
    path = local.import_local(source, "mine")
    assert path == paths.models_dir() / "mine.gguf"
    assert path.samefile(source)
    assert local.model_path("mine") == path
    assert local.import_local(source, "mine") == path
    other = home / "other.gguf"
    other.write_bytes(sound("qwen2").build())
    assert "is another file" in refusal(lambda: local.import_local(other, "mine"))
    for name in ("../up", "a/b", ".hidden"):
        assert "cannot name" in refusal(lambda name=name: local.import_local(other, name))  # type: ignore[misc]
    broken = home / "broken.gguf"
    broken.write_bytes(sound().build()[:-9])
    assert "is cut short" in refusal(lambda: local.import_local(broken), ModelFileError)
    assert not (paths.models_dir() / "broken.gguf").exists()


def test_a_file_on_another_disk_is_copied(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    source = home / "model.gguf"
    source.write_bytes(sound().build())
    path = local.import_local(source)
    assert not path.samefile(source)
    assert path.read_bytes() == source.read_bytes()
    assert [file.name for file in path.parent.glob("*.gguf*")] == ["model.gguf"]
