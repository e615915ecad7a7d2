"""The ladder of quants, on the embedded model and with llama.cpp's own tools."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from qwqlab import files, paths
from qwqlab.errors import ModelFileError, SettingError
from qwqlab.llamacpp import tools
from qwqlab.models import (
    RungResult,
    climb,
    compare_rungs,
    inspect,
    measure_rung,
    quants,
    read_record,
    requantize,
    sweep_copy,
)


@pytest.fixture(scope="module")
def rungs(model_path: Path) -> dict[str, RungResult]:
    """Two copies and their source, measured."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        results = climb(model_path, ("Q8_0", "Q2_K", "Q4_1"))
    lines = said.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "1 of 3: Q8_0",
        "2 of 3: Q2_K",
        "3 of 3: Q4_1",
    ]
    assert [result.name for result in results] == ["Q2_K", "Q4_1", "Q8_0"]
    return {result.name: result for result in results}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own; the build stays in use."""
    monkeypatch.setenv("QWQLAB_LLAMA_CPP_BUILD", str(tools.find_build().bin))
    monkeypatch.setenv("QWQLAB_HOME", str(tmp_path))
    return tmp_path


def test_the_quants_are_those_that_llama_quantize_lists() -> None:
    command = [str(tools.tool("llama-quantize")), "--help"]  # which it ends with exit code 1
    help_text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    rows = re.findall(r"^\s+(?:\d+\s+or\s+)?([A-Z]\w+)\s+:", help_text, re.MULTILINE)
    need_a_matrix = {"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "Q2_K_S"}
    ours = {*quants.QUANTS, *need_a_matrix, *quants.ALIASES, "MXFP4_MOE", "COPY"}
    assert set(rows) == ours
    aliases = dict(re.findall(r"(\w+)\s+: alias for (\w+)", help_text))
    assert aliases == quants.ALIASES


def test_an_unknown_quant_lists_the_known_ones(model_path: Path) -> None:
    with pytest.raises(SettingError, match=r"'Q4_M' is not a quant .*'Q4_K_M'"):
        requantize(model_path, "Q4_M")
    with pytest.raises(SettingError, match=r"'iq2_xxs' is not .* without an importance matrix"):
        requantize(model_path, "iq2_xxs")


def test_a_copy_is_byte_for_byte_what_llama_quantize_makes(
    model_path: Path, tmp_path: Path
) -> None:
    args = ["--allow-requantize", str(model_path), str(tmp_path / "own.gguf"), "Q8_0"]
    tools.run_tool("llama-quantize", args)
    copy = sweep_copy(model_path)
    assert copy == paths.models_dir() / "SmolLM2-135M-Instruct.Q8_0.gguf"
    assert copy.read_bytes() == (tmp_path / "own.gguf").read_bytes()
    assert inspect(copy).file_type == "Q8_0"


def test_a_copy_is_made_once_and_anew_when_its_source_is_another(
    model_path: Path, home: Path
) -> None:
    source = home / "small.Q4_1.gguf"
    shutil.copy(model_path, source)
    copy = requantize(source, "q4_0")
    before, old = copy.stat(), copy.read_bytes()
    assert requantize(source, "Q4_0") == copy
    # The same file: all but the time of its last reading.
    assert (copy.stat().st_ino, copy.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    # Another source of the same name: one weight differs, so must the copy.
    with source.open("r+b") as file:
        file.seek(-64, 2)
        file.write(bytes(64))
    new = requantize(source, "Q4_0").read_bytes()
    assert new != old
    made = read_record(copy)
    assert made is not None
    assert made["source"] == files.read_sha256(source)
    assert [path for path in copy.parent.iterdir() if path.name.startswith(f".{copy.name}")] == []
    copy.write_bytes(b"a reader's own")
    with pytest.raises(ModelFileError, match="not a copy that the lab made"):
        requantize(source, "Q4_0")
    assert copy.read_bytes() == b"a reader's own"


def test_a_source_of_that_quant_is_its_own_copy(model_path: Path) -> None:
    assert requantize(model_path, "Q4_1") == model_path.resolve()


def test_a_source_that_is_cut_short_is_refused(model_path: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(model_path.read_bytes()[:-1000])
    with pytest.raises(ModelFileError, match=r"cut\.gguf"):
        requantize(cut, "Q4_0")


def test_rows_that_do_not_divide_into_blocks_fall_back_to_another_type(
    rungs: dict[str, RungResult],
) -> None:
    # 576 columns are no multiple of the 256 of a K-quant's block.
    made = read_record(Path(rungs["Q2_K"].path))
    assert made is not None
    assert sum(made["fallbacks"].values()) == rungs["Q2_K"].fallback_tensors == 180
    assert all(wanted.split(" -> ")[0].endswith("_K") for wanted in made["fallbacks"])
    assert rungs["Q2_K"].bits_per_weight > 5
    assert rungs["Q8_0"].fallback_tensors == 0
    assert rungs["Q4_1"].fallback_tensors is None


def test_a_coarser_copy_reads_worse_and_a_finer_one_no_better_than_its_source(
    rungs: dict[str, RungResult],
) -> None:
    coarse, coarse_error = compare_rungs(rungs["Q2_K"], rungs["Q4_1"])
    assert coarse - 3 * coarse_error > 1.1
    fine, _ = compare_rungs(rungs["Q8_0"], rungs["Q4_1"])
    assert fine == pytest.approx(1.0, abs=0.02)
    assert compare_rungs(rungs["Q8_0"], rungs["Q8_0"]) == (1.0, 0.0)


@pytest.mark.nightly  # each perplexity is held against the tool's own last line when it is read
def test_the_perplexity_is_the_one_that_llama_perplexity_prints(
    rungs: dict[str, RungResult],
) -> None:
    rung = rungs["Q2_K"]
    text = paths.data_dir() / "texts" / "evaluation.txt"
    args = ["-m", rung.path, "-f", str(text), "-c", "512", "--chunks", "6"]
    printed = tools.run_tool("llama-perplexity", args).stdout
    so_far = [float(number) for number in re.findall(r"\]([\d.]+),", printed)]
    assert rung.perplexity == pytest.approx(so_far[-1], rel=1e-4)
    assert len(rung.chunk_surprises) == len(so_far) == quants.N_CHUNKS
    assert 0 < rung.perplexity_error < rung.perplexity / 4


def test_what_was_read_is_not_read_again(
    rungs: dict[str, RungResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def note(name: str, args: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        asked.append(name)
        return tools.run_tool(name, args, **options)

    monkeypatch.setattr(quants, "run_tool", note)
    again = measure_rung(rungs["Q2_K"].path)
    assert asked == ["llama-bench"]
    for name, value in vars(rungs["Q2_K"]).items():
        assert name.startswith("tokens_per_second") or vars(again)[name] == value
    assert min(again.tokens_per_second_generate, again.tokens_per_second_prompt) > 0
