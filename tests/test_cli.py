"""The command line: what a shell gets, and how it says no."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from qwqlab.cli import main
from qwqlab.experiments import RunStore
from qwqlab.paths import CHECKOUT
from qwqlab.sampling import PRESETS

FLAGS = ["--samplers", "top_k;top_p;temperature", "--temp", "0.7", "--repeat-penalty", "1.3"]


@pytest.fixture
def prompt_file(tmp_path: Path, code_prompt: str) -> Path:
    path = tmp_path / "prompt.txt"
    path.write_text(code_prompt)
    return path


def test_generate_prints_one_json_object_that_llama_completion_confirms(
    prompt_file: Path,
    code_prompt: str,
    model_path: Path,
    llama_completion: Callable[[Sequence[str]], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    args = ["generate", "--model", "smollm2-135m", "--prompt-file", str(prompt_file)]
    assert main([*args, "--seed", "7", "-n", "24", *FLAGS, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["chain"] == ["top_k", "top_p", "temperature", "dist"]
    assert values["inert"][-1] == (
        "repeat_penalty=1.3 has no effect: `penalties` is not in the order"
    )
    assert values["tokens_per_second"] > 0
    same = ["-m", str(model_path), "-p", code_prompt, "--seed", "7", "-n", "24", *FLAGS]
    printed = llama_completion([*same, "-no-cnv", "--no-display-prompt"])
    assert printed.startswith(values["text"])
    assert printed[len(values["text"]) :].strip() in ("", "[end of text]")


def test_flags_go_over_a_preset(prompt_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["generate", "--preset", "article", "--prompt-file", str(prompt_file), "-n", "2"]
    assert main([*args, "--dry-multiplier", "0", "--top-k", "7", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["chain"] == [*PRESETS["article"].samplers, "dist"]
    dry = [sentence for sentence in values["inert"] if sentence.startswith("dry")]
    assert dry == ["dry_penalty_last_n=16384 has no effect: dry_multiplier is 0"]
    assert any("repeat_penalty=1.1" in sentence for sentence in values["inert"])


@pytest.mark.parametrize(
    ("argv", "unloaded"),
    [
        (["path", "llama-bench"], {"numpy", "llama_cpp", "pandas", "plotly", "torch"}),
        (["generate", "--model", "/no/such.gguf"], {"pandas", "plotly", "torch", "transformers"}),
    ],
)
def test_a_command_loads_only_what_it_uses(argv: list[str], unloaded: set[str]) -> None:
    code = f"import sys; from qwqlab.cli import main; main({argv}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert unloaded.isdisjoint(done.stdout.split())


def test_a_terminal_that_lacks_a_character_does_not_end_a_run(prompt_file: Path) -> None:
    prompt_file.write_text("Repeat: é 日本 é 日本 é")
    args = [sys.executable, "-m", "qwqlab.cli", "generate", "--prompt-file", str(prompt_file)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([*args, "-n", "12", "--temp", "0"], capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()


def test_path_prints_files_that_are_there(
    model_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["path", "smollm2-135m"]) == 0
    assert capsys.readouterr().out.strip() == str(model_path)
    assert main(["path", "llama-completion"]) == 0
    assert shutil.which(capsys.readouterr().out.strip())


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["generate", "--prompt", "x", "--temp", "nan"], "--temp nan is out of range"),
        (["generate", "--prompt", "x", "--samplers", "top_p;top_p"], "'top_p' is in the order tw"),
        (["generate", "--prompt", "x", "--model", "/no/such.gguf"], "/no/such.gguf"),
        (["generate", "--prompt", "x", "--preset", "none"], "'none' is not a preset"),
        (["generate", "--prompt", "x", "-n", str(2**63)], f"-n '{2**63}' is out of range"),
        (["generate", "--prompt", "x", "--top-k", "9" * 400], "--top-k '9999"),
        (["generate", "--prompt", "x", "-c", "9" * 400], "a whole number of 32 bits"),
        (["generate", "--prompt", "x", "-c", "8", "-n", "1", "-ub", "-1"], "-ub -1 is out of"),
        (["generate", "--prompt", "word " * 300, "-c", "8"], "shorten it or raise --ctx-size"),
        (["generate", "-hf", "a/b"], "-hf is refused: in llama.cpp it would download a model"),
        (["generate", "-mg", "0"], "-mg is refused: in llama.cpp it would choose the devices"),
        (["generate", "--prompt", "x", "-c", "2000000000"], "lower --ctx-size or --n-predict\n"),
        (
            ["generate", "--prompt", "x", "--yarn-orig-ctx", str(2**32)],
            "--yarn-orig-ctx '42949",
        ),
        (["reproduce", "--json", "/no/such/folder/x.json"], "/no/such/folder/x.json cannot be"),
        (["generate", "--prompt", "x", "--prompt-file", "y"], "--prompt-file or --prompt, not"),
        (["generate", "--prompt", "x " * 9, "--rope-scale", "12e-39"], "logits are not numbers"),
        (["generate", "--prompt", "x", "--model", "~no_such_user/a.gguf"], "~no_such_user/a.gguf"),
        (["generate", "--prompt", "x", "--repeat-last-n", "2000000000"], "--repeat-last-n 2000"),
        (["generate"], "there is no prompt; give one, as in `qwqlab generate --prompt"),
        (["generate", "word"], "'word' is not a flag of llama.cpp; a prompt goes after --prompt"),
        (["generate", "--tmp", "0.6"], "do you mean --temp?"),
        (["path", str(CHECKOUT / "README.md")], "README.md is no .gguf file; give a model's name"),
        (["path", "nonsense"], "A tool's name begins with llama-."),
        (["path", "llama-nothing"], "llama-nothing is not built"),
        (["fetch", "no-such-model"], "no-such-model"),
        (["export", "/no/such.sqlite", "runs.csv"], "/no/such.sqlite is no store; `qwqlab rep"),
        (["export", "/no/such.sqlite", "runs.xls"], "runs.xls ends in neither .csv nor .json"),
    ],
)
def test_an_error_is_one_sentence_on_stderr(
    args: list[str] | list[Any], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == 1
    said = capsys.readouterr()
    assert words in said.err
    assert said.out == ""
    assert "Traceback" not in said.err


def test_the_version_and_the_flags_of_generate_can_be_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for argv, words in ((["--version"], "qwqlab 0.1.0"), (["generate", "--help"], "--min-p")):
        with pytest.raises(SystemExit, match="0"):
            main(argv)
        assert words in capsys.readouterr().out
    assert main(["render", "--template", "with-think", "--messages", "nothing"]) == 2
    assert "nothing cannot be read: No such file" in capsys.readouterr().err


def test_a_reader_that_goes_away_ends_a_run_in_silence(prompt_file: Path) -> None:
    args = [sys.executable, "-m", "qwqlab.cli", "generate", "--prompt-file", str(prompt_file)]
    args += ["-n", "200", "--ignore-eos"]
    with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(5)
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 1
    assert said == b""


def test_an_output_that_cannot_be_written_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RunStore(tmp_path / "runs.sqlite").close()
    target = tmp_path / "runs.sqlite" / "a.csv"  # below a file
    assert main(["export", str(tmp_path / "runs.sqlite"), str(target)]) == 1
    assert f"{target} cannot be written" in capsys.readouterr().err


def test_a_store_is_not_overwritten_by_its_own_export(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "runs.json"
    RunStore(store).close()
    assert main(["export", str(store), str(store)]) == 1
    assert main(["reproduce", "--quick", "--store", str(store), "--json", str(store)]) == 1
    assert capsys.readouterr().err.count("store") >= 2
    assert store.read_bytes().startswith(b"SQLite format 3")


def test_a_home_that_no_one_has_is_a_folder_like_any_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QWQLAB_HOME", "~no_such_user")
    assert main(["path", "llama-bench"]) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_a_store_is_exported_as_its_name_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RunStore(tmp_path / "runs.sqlite").close()
    for name in ("runs.csv", "runs.json"):
        assert main(["export", str(tmp_path / "runs.sqlite"), str(tmp_path / name)]) == 0
        assert capsys.readouterr().out.strip() == str(tmp_path / name)
    assert json.loads((tmp_path / "runs.json").read_text()) == []
    assert (tmp_path / "runs.csv").is_file()
