"""Models that are here already are found by their headers, and the best that fits is chosen."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import nbformat
import pytest
from huggingface_hub import constants
from malformed import Gguf
from nbclient import NotebookClient
from tiny_gguf import make_tiny_gguf

from qwqlab import paths
from qwqlab.errors import FetchError
from qwqlab.llamacpp import FILE_TYPES, find_build
from qwqlab.models import (
    Entry,
    choose_model,
    fetch,
    import_local,
    list_local,
    lookup,
    model_path,
    place_layers,
)
from qwqlab.models.room import Room, pick_model

NUMBERS = {name: number for number, name in FILE_TYPES.items()}
Q4 = lookup("QwQ-32B:Q4_K_M")
CODERS = [lookup(f"Qwen2.5-Coder-{size}-Instruct:Q4_K_M") for size in ("0.5B", "1.5B")]
GIB = 1 << 30


@pytest.fixture(scope="module")
def llama() -> Path:
    """The folder of llama.cpp's programs, found before a test moves the lab."""
    return find_build().bin


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, lab, hub's cache and current folder, each of its own."""
    for name in ("lab", "cache", "here", "person"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("QWQLAB_HOME", str(tmp_path / "lab"))
    monkeypatch.setenv("HOME", str(tmp_path / "person"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("QWQLAB_MODEL", raising=False)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def make(path: Path, entry: Entry = Q4, n_bytes: int = 0, **changes: Any) -> Path:
    """Write a file with the header of a model of the catalog, and of its size, but no bytes."""
    shape = entry.architecture
    keys: dict[str, Any] = {
        "general.architecture": shape.name,
        "general.name": entry.model.replace("-", " "),
        "general.file_type": NUMBERS[entry.quant],
        f"{shape.name}.block_count": shape.n_layers,
        f"{shape.name}.embedding_length": shape.n_embd,
        f"{shape.name}.attention.head_count": shape.n_embd // shape.head_dim,
        f"{shape.name}.attention.head_count_kv": shape.n_kv_heads,
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = {key: value for key, value in keys.items() if value is not None}
    path.write_bytes(Gguf(keys=list(keys.items())).build())
    with path.open("rb+") as file:
        file.truncate(n_bytes or entry.n_bytes)  # takes no room on the disk
    return path


def is_found(entry: Entry = Q4) -> bool:
    return entry in list_local()


def test_an_imported_file_is_found_by_its_catalogued_name(home: Path) -> None:
    file = import_local(make(home / "my-download.gguf"))
    assert model_path("QwQ-32B:Q4_K_M") == file == paths.models_dir() / "my-download.gguf"
    assert list_local() == (Q4,)


@pytest.mark.parametrize(
    "place",
    [
        "here/unsloth-QwQ-32B-GGUF/QwQ-32B-Q4_K_M.gguf",
        "person/unsloth-QwQ-32B-GGUF/QwQ-32B-Q4_K_M.gguf",
        "cache/models--unsloth--QwQ-32B-GGUF/snapshots/1a2b/QwQ-32B-Q4_K_M.gguf",
        "cache/models--Qwen--QwQ-32B-GGUF/snapshots/1a2b/qwq-32b-q4_k_m.gguf",
    ],
)
def test_a_file_that_something_else_brought_is_found_where_it_lies(home: Path, place: str) -> None:
    file = make(home / place)
    assert model_path("qwq-32b:q4_k_m") == file
    assert is_found()


def test_what_is_here_is_not_fetched_again(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    file = make(home / "here" / "unsloth-QwQ-32B-GGUF" / "QwQ-32B-Q4_K_M.gguf")
    assert fetch("QwQ-32B:Q4_K_M") == file
    assert "is here already" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        {"general__name": "QwQ 32B Preview"},
        {"general__name": "DeepSeek R1 Distill Qwen 32B"},
        {"general__file_type": NUMBERS["Q5_K_M"]},
        {"general__file_type": None},
        {"general__architecture": "qwen3"},
        {"qwen2__block_count": 48},
        {"qwen2__attention__head_count_kv": 40},
        {"qwen2__attention__head_count_kv": [8, 8]},
        {"n_bytes": 9_000_000_000},
    ],
)
def test_the_header_decides_and_not_the_name(home: Path, change: dict[str, Any]) -> None:
    make(paths.models_dir() / "QwQ-32B-Q4_K_M.gguf", **change)
    assert not is_found()


def test_names_are_compared_without_what_spellings_differ_in(home: Path) -> None:
    make(paths.models_dir() / "a.gguf", CODERS[0], general__name="Qwen2.5 Coder 0.5B Instruct AWQ")
    make(paths.models_dir() / "QwQ-32B-Q8_0.gguf", lookup("QwQ-32B:Q8_0"), general__name="qwq-32b")
    assert list_local() == (CODERS[0], lookup("QwQ-32B:Q8_0"))


def test_what_is_cut_short_or_no_gguf_is_passed_over(home: Path) -> None:
    make(paths.models_dir() / "a.gguf").write_bytes(b"GGUF")
    other = make(paths.models_dir() / "b.gguf")
    with other.open("rb+") as file:
        file.write(b"????")
    assert not is_found()
    named = home / "here" / "unsloth-QwQ-32B-GGUF" / Q4.filename
    for change, why in (("cut", "is not a GGUF|is cut short"), ("another", "is another model's")):
        make(named, general__name=change)
        if change == "cut":
            named.write_bytes(b"GGUF")
        with pytest.raises(FetchError, match=f"is not on this machine.*{named}.*({why})"):
            model_path(Q4.name)
    make(paths.models_dir() / "c.gguf")
    assert is_found()


def test_a_model_in_parts_is_found_by_its_first_if_all_are_there(home: Path) -> None:
    bf16 = lookup("QwQ-32B:BF16")
    folder = home / "here" / "unsloth-QwQ-32B-GGUF" / "BF16"
    parts = [folder / f"QwQ-32B.BF16-0000{n}-of-00002.gguf" for n in (1, 2)]
    for part in parts:
        make(part, bf16, n_bytes=bf16.n_bytes // 2, split__count=2)
    assert model_path(bf16.name) == parts[0]
    parts[1].unlink()
    assert not is_found(bf16)


def test_a_changed_file_is_read_again(home: Path) -> None:
    file = make(paths.models_dir() / "a.gguf")
    assert is_found()
    make(file, general__name="another")
    assert not is_found()


# How many layers fit on a card


def test_the_layers_that_fit_are_those_of_a_sum_by_hand() -> None:
    # 19.9 GB and 16,384 x 262,144 bytes of cache, in 64 layers and the head: 372.2 MB each. Of a
    # card llama.cpp leaves 1 GiB free, and 332 MB are for the computation.
    for gib, n_layers in ((24, 65), (16, 42), (8, 19), (1, 0), (0, 0)):
        place = place_layers(Q4, 16_384, gib * GIB)
        left = gib * GIB - GIB - 332_398_592
        assert place.n_gpu_layers == n_layers == max(0, min(65, left // 372_232_221))
        assert place.card <= gib * GIB
        assert place.card + place.ram == 19_900_000_000 + 16_384 * 262_144 + 332_398_592


# The choice


@pytest.mark.parametrize(
    ("card", "ram", "chosen"),
    [
        (24 * GIB, 4 * GIB, "QwQ-32B:Q4_K_M"),  # whole on the card
        (24 * GIB, 64 * GIB, "QwQ-32B:Q4_K_M"),  # Q8_0 fits both together, and is slower
        (48 * GIB, 4 * GIB, "QwQ-32B:Q8_0"),
        (8 * GIB, 24 * GIB, "QwQ-32B:Q4_K_M"),  # in part on the card
        (0, 64 * GIB, "QwQ-32B:Q8_0"),
        (0, 16 * GIB, "Qwen2.5-Coder-1.5B-Instruct:Q4_K_M"),
        (0, 1_500_000_000, "Qwen2.5-Coder-0.5B-Instruct:Q4_K_M"),
        (0, 500_000_000, "smollm2-135m"),
    ],
)
def test_the_best_model_that_fits_is_chosen(card: int, ram: int, chosen: str) -> None:
    here = [*CODERS, Q4, lookup("QwQ-32B:Q8_0"), lookup("DeepSeek-R1-Distill-Qwen-7B:Q4_K_M")]
    assert pick_model(here, Room(card, ram), 8192) == chosen
    assert pick_model([], Room(card, ram), 8192) == "smollm2-135m"


def test_a_variable_overrules_the_choice(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_model() == "smollm2-135m"
    file = make(home / "here" / "mine.gguf", CODERS[0])
    for own in (str(file), "mine.gguf"):
        monkeypatch.setenv("QWQLAB_MODEL", own)
        assert choose_model() == own
    for own, reason in (("QwQ-32B:Q8_0", "is not on this machine"), ("no.gguf", "is no file")):
        monkeypatch.setenv("QWQLAB_MODEL", own)
        with pytest.raises(FetchError, match=f"QWQLAB_MODEL is '{own}', .*{reason}"):
            choose_model()


def test_choosing_costs_milliseconds_and_reads_no_weights(
    home: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QWQLAB_LLAMA_CPP_BUILD", str(llama))
    make(paths.models_dir() / "a.gguf", CODERS[0])
    assert choose_model() == CODERS[0].name
    monkeypatch.setattr("qwqlab.models.finding.inspect", lambda *_: pytest.fail("read again"))
    monkeypatch.setattr("qwqlab.files.read_sha256", lambda *_: pytest.fail("hashed"))
    start = time.process_time()
    assert choose_model() == CODERS[0].name
    assert time.process_time() - start < 0.5


@pytest.mark.nightly
def test_00_asks_of_another_model_only_what_holds_for_any(
    home: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a model of random weights, whose texts are nothing like SmolLM2's."""
    monkeypatch.setenv("QWQLAB_LLAMA_CPP_BUILD", str(llama))
    tiny = make_tiny_gguf(home / "tiny.gguf")
    monkeypatch.setenv("QWQLAB_MODEL", str(tiny))
    path = paths.notebooks_dir() / "00_start_here.ipynb"
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    ran = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": home}}).execute()
    (setup,) = (cell for cell in ran.cells if cell.id == "setup")
    assert f"the model in use: {tiny}" in setup.outputs[0].text
