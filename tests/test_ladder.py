"""The ladder of quants, on the embedded model and with llama.cpp's own tools."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from qwqlab import gguf_file, hashes, ladder, paths, requantize, toolchain
from qwqlab.errors import FetchError, ModelFileError, SettingError, ToolchainError


@pytest.fixture(scope="module")
def rungs(model_path: Path) -> dict[str, ladder.RungResult]:
    """Two copies and their source, measured."""
    said: list[str] = []
    results = ladder.climb(model_path, ("Q8_0", "Q2_K", "Q4_1"), say=said.append)
    assert [line.split(",")[0] for line in said] == ["1 of 3: Q8_0", "2 of 3: Q2_K", "3 of 3: Q4_1"]
    assert [result.name for result in results] == ["Q2_K", "Q4_1", "Q8_0"]
    return {result.name: result for result in results}


def test_the_quants_are_those_that_llama_quantize_lists() -> None:
    command = [str(toolchain.tool("llama-quantize")), "--help"]  # which it ends with exit code 1
    help_text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    rows = re.findall(r"^\s+(?:\d+\s+or\s+)?([A-Z]\w+)\s+:", help_text, re.MULTILINE)
    ours = {*requantize.QUANTS, *requantize.NEED_IMATRIX, *requantize.ALIASES, "MXFP4_MOE", "COPY"}
    assert set(rows) == ours
    aliases = dict(re.findall(r"(\w+)\s+: alias for (\w+)", help_text))
    assert aliases == requantize.ALIASES


def test_an_unknown_quant_lists_the_known_ones(model_path: Path) -> None:
    with pytest.raises(SettingError, match=r"'Q4_M' is not a quant .*'Q4_K_M'"):
        requantize.requantize(model_path, "Q4_M")
    with pytest.raises(SettingError, match="IQ2_XXS needs an importance matrix"):
        requantize.requantize(model_path, "iq2_xxs")


def test_a_copy_is_byte_for_byte_what_llama_quantize_makes(
    model_path: Path, tmp_path: Path
) -> None:
    args = ["--allow-requantize", str(model_path), str(tmp_path / "own.gguf"), "Q8_0"]
    toolchain.run_tool("llama-quantize", args)
    copy = requantize.sweep_copy(model_path)
    assert copy == paths.models_dir() / "SmolLM2-135M-Instruct.Q8_0.gguf"
    assert copy.read_bytes() == (tmp_path / "own.gguf").read_bytes()
    assert gguf_file.inspect(copy).file_type == "Q8_0"


def test_a_copy_whose_making_was_cut_short_is_made_anew(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QWQLAB_LLAMA_CPP_BUILD", str(toolchain.find().bin))
    monkeypatch.setenv("QWQLAB_HOME", str(tmp_path))
    source = tmp_path / "small.Q4_1.gguf"
    shutil.copy(model_path, source)
    copy = requantize.requantize(source, "Q4_0")
    old = copy.read_bytes()
    with source.open("r+b") as file:
        file.seek(-64, 2)
        file.write(bytes(64))
    new = requantize.requantize(source, "Q4_0").read_bytes()
    copy.write_bytes(old)  # as if killed after the record was written and before the file was
    assert requantize.requantize(source, "Q4_0").read_bytes() == new != old
    copy.write_bytes(b"a reader's own")
    with pytest.raises(ModelFileError, match="not a copy that the lab made"):
        requantize.requantize(source, "Q4_0")


def test_a_copy_is_made_once_and_again_when_its_source_is_another(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = toolchain.find().bin
    monkeypatch.setenv("QWQLAB_LLAMA_CPP_BUILD", str(build))
    monkeypatch.setenv("QWQLAB_HOME", str(tmp_path))
    source = tmp_path / "small.Q4_1.gguf"
    shutil.copy(model_path, source)
    copy = requantize.requantize(source, "q4_0")
    before = copy.stat()
    assert requantize.requantize(source, "Q4_0") == copy
    # The same file: all but the time of its last reading.
    assert (copy.stat().st_ino, copy.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    # Another source of the same name: one weight differs, so must the copy.
    with source.open("r+b") as file:
        file.seek(-64, 2)
        file.write(bytes(64))
    requantize.requantize(source, "Q4_0")
    assert copy.stat().st_ino != before.st_ino
    made = requantize.read_record(copy)
    assert made is not None
    assert made["source"] == hashes.read_sha256(source)
    leftovers = [
        path for path in paths.models_dir().iterdir() if path.name.startswith(f".{copy.name}")
    ]
    assert leftovers == []


def test_a_file_that_the_lab_did_not_make_is_never_replaced(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = toolchain.find().bin
    monkeypatch.setenv("QWQLAB_LLAMA_CPP_BUILD", str(build))
    monkeypatch.setenv("QWQLAB_HOME", str(tmp_path))
    mine = paths.models_dir() / "SmolLM2-135M-Instruct.Q4_0.gguf"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with pytest.raises(ModelFileError, match="is not a copy that the lab made"):
        requantize.requantize(model_path, "Q4_0")
    assert mine.read_bytes() == b"mine"


def test_a_source_of_that_quant_is_its_own_copy(model_path: Path) -> None:
    assert requantize.requantize(model_path, "Q4_1") == model_path.resolve()


def test_a_full_disk_is_told_before_anything_is_written(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(paths.models_dir())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**6))
    with pytest.raises(FetchError, match=r"Q5_1\.gguf needs .* and .* has 1\.0 MB free"):
        requantize.requantize(model_path, "Q5_1")
    assert not (paths.models_dir() / "SmolLM2-135M-Instruct.Q5_1.gguf").exists()


def test_a_source_that_is_cut_short_is_refused(model_path: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(model_path.read_bytes()[:-1000])
    with pytest.raises(ModelFileError, match=r"cut\.gguf"):
        requantize.requantize(cut, "Q4_0")


def test_rows_that_do_not_divide_into_blocks_fall_back_to_another_type(
    rungs: dict[str, ladder.RungResult],
) -> None:
    # 576 columns are no multiple of the 256 of a K-quant's block.
    made = requantize.read_record(Path(rungs["Q2_K"].path))
    assert made is not None
    assert sum(made["fallbacks"].values()) == rungs["Q2_K"].fallback_tensors == 180
    assert all(wanted.split(" -> ")[0].endswith("_K") for wanted in made["fallbacks"])
    assert rungs["Q2_K"].bits_per_weight > 5
    assert rungs["Q8_0"].fallback_tensors == 0
    assert rungs["Q4_1"].fallback_tensors is None


def test_a_coarser_copy_reads_worse_and_a_finer_one_no_better_than_its_source(
    rungs: dict[str, ladder.RungResult],
) -> None:
    coarse, coarse_error = ladder.compare(rungs["Q2_K"], rungs["Q4_1"])
    assert coarse - 3 * coarse_error > 1.1
    fine, _ = ladder.compare(rungs["Q8_0"], rungs["Q4_1"])
    assert fine == pytest.approx(1.0, abs=0.02)
    assert ladder.compare(rungs["Q8_0"], rungs["Q8_0"]) == (1.0, 0.0)


def test_the_perplexity_is_the_one_that_llama_perplexity_prints(
    rungs: dict[str, ladder.RungResult],
) -> None:
    rung = rungs["Q2_K"]
    text = paths.data_dir() / "texts" / "evaluation.txt"
    args = ["-m", rung.path, "-f", str(text), "-c", "512", "--chunks", "6"]
    printed = toolchain.run_tool("llama-perplexity", args).stdout
    so_far = [float(number) for number in re.findall(r"\]([\d.]+),", printed)]
    assert rung.perplexity == pytest.approx(so_far[-1], rel=1e-4)
    assert len(rung.chunk_surprises) == len(so_far) == ladder.N_CHUNKS
    assert 0 < rung.perplexity_error < rung.perplexity / 4


def test_what_was_read_is_not_read_again(
    rungs: dict[str, ladder.RungResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    run_tool = toolchain.run_tool

    def note(name: str, args: list[str]) -> subprocess.CompletedProcess[str]:
        asked.append(name)
        return run_tool(name, args)

    monkeypatch.setattr(toolchain, "run_tool", note)
    again = ladder.measure(rungs["Q2_K"].path)
    assert asked == ["llama-bench"]
    for name, value in rungs["Q2_K"].to_dict().items():
        assert name.startswith("tokens_per_second") or again.to_dict()[name] == value
    assert min(again.tokens_per_second_generate, again.tokens_per_second_prompt) > 0


def test_a_text_that_is_too_short_is_named(model_path: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("One sentence is not enough.")
    with pytest.raises(ToolchainError, match=r"short\.txt is too short"):
        ladder.measure(model_path, short)


def test_a_result_survives_json(rungs: dict[str, ladder.RungResult]) -> None:
    rung = rungs["Q2_K"]
    assert ladder.RungResult.from_dict(json.loads(json.dumps(rung.to_dict()))) == rung
