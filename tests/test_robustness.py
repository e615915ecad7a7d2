"""Killed kernels, notebooks at once, odd paths and locales: nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import pytest
import tiny_llama
from outside import CHECKOUT, environment, open_kernel, run_python
from test_runs import ABOUT, make_run

from qwqlab import files, paths
from qwqlab.experiments import LOADING, RunStore, sweep
from qwqlab.models import sweep_copy
from qwqlab.quant import quant_error
from qwqlab.sampling import PRESETS, Engine, Request

# A kernel that is killed

SWEEP = """
import json, sys
from qwqlab.sampling import Engine
from qwqlab.experiments import LOADING
from qwqlab.sampling import Request
from qwqlab.experiments import RunStore
from qwqlab.sampling import PRESETS
from qwqlab.experiments import sweep
requests = [Request({prompt!r}, PRESETS["official"], seed, 24) for seed in range({count})]
with Engine({model!r}, LOADING) as engine, RunStore({store!r}) as store:
    runs = sweep(engine, requests, store, width=4, on_run=lambda done, *_: print(done, flush=True))
print(json.dumps([run.text for run in runs]))
"""


@pytest.fixture(scope="module")
def model(model_path: Path) -> Path:
    return sweep_copy(model_path)


def read_texts(store: Path) -> list[str]:
    with RunStore(store) as kept:
        return [run.run.text for run in sorted(kept.runs(), key=lambda run: run.run.request.seed)]


def test_a_sweep_of_a_killed_kernel_goes_on_where_it_stopped(
    model: Path, code_prompt: str, tmp_path: Path
) -> None:
    store, count = tmp_path / "runs.sqlite", 10
    cell = SWEEP.format(prompt=code_prompt, count=count, model=str(model), store=str(store))
    with open_kernel() as kernel:
        lines = kernel.execute(cell)
        acknowledged = [int(next(lines)) for _ in range(3)]
        kernel.kill()
    kept = len(read_texts(store))
    assert acknowledged == [1, 2, 3]
    assert len(acknowledged) <= kept < count
    with open_kernel() as kernel:
        *told, texts = kernel.execute(cell)
    assert [int(line) for line in told] == list(range(kept + 1, count + 1))
    requests = [Request(code_prompt, PRESETS["official"], seed, 24) for seed in range(count)]
    with Engine(model, LOADING) as engine:
        unbroken = [run.text for run in sweep(engine, requests)]
    assert json.loads(texts) == unbroken == read_texts(store)


@pytest.mark.nightly
def test_what_a_killed_kernel_had_measured_of_a_model_is_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_llama.make(tmp_path / "tiny")
    home = tmp_path / "home"
    cell = (
        "import signal\nfrom qwqlab.quant import quant_error\n"
        "def tell(done, total, module):\n"
        "    print(done, flush=True)\n"
        "    if done == 4: signal.pause()\n"
        f"quant_error({str(folder)!r}, outputs=False, on_module=tell)\n"
    )
    with open_kernel(QWQLAB_HOME=str(home)) as kernel:
        lines = kernel.execute(cell)
        assert [int(next(lines)) for _ in range(4)] == [1, 2, 3, 4]
        kernel.kill()
    (journal,) = (home / "build/models/module-errors").iterdir()
    journal.write_bytes(journal.read_bytes()[:-20])  # killed within the fourth line
    whole = quant_error(folder, outputs=False)
    monkeypatch.setenv("QWQLAB_HOME", str(home))
    measured: list[int] = []
    found = quant_error(folder, outputs=False, on_module=lambda done, *_: measured.append(done))
    assert measured == list(range(4, len(found.modules) + 1))
    assert found.whole
    assert found.modules == whole.modules


# Two notebooks


def test_two_kernels_fill_one_store_while_a_third_process_reads_it(
    model: Path, code_prompt: str, tmp_path: Path
) -> None:
    store, count = tmp_path / "runs.sqlite", 8
    cell = SWEEP.format(prompt=code_prompt, count=count, model=str(model), store=str(store))
    with open_kernel() as one, open_kernel() as other:
        first, second = one.execute(cell), other.execute(cell)
        seen, told = [], []
        with RunStore(store) as kept:
            for line in first:  # the other runs meanwhile: its lines wait in its channel
                told.append(line)
                seen.append(len(list(kept.runs())))
        texts = [json.loads(told[-1]), json.loads(list(second)[-1])]
    assert seen == sorted(seen)
    assert texts[0] == texts[1] == read_texts(store)
    with RunStore(store) as kept:
        assert [run.run.request.seed for run in kept.runs()].count(0) == 1
        assert len(list(kept.runs())) == count


def test_of_two_who_unpack_a_model_at_once_the_second_takes_what_the_first_put_there(
    tmp_path: Path,
) -> None:
    for name in ("mine", "theirs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_text(name)
    files.place_folder(tmp_path / "theirs", tmp_path / "model")
    files.place_folder(tmp_path / "mine", tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").read_text() == "theirs"
    with pytest.raises(OSError):
        files.place_folder(tmp_path / "nothing", tmp_path / "another")


# A path with spaces, quotes and Chinese characters

ODD = 'my lab\'s 模型 "new" $HOME'


@pytest.fixture
def odd_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path) -> Path:
    """A home of such a name that holds the build of llama.cpp and a model."""
    home = tmp_path / ODD
    here = paths.build_dir()
    (home / "build/models").mkdir(parents=True)
    shutil.copytree(here / "llama.cpp/bin", home / "build/llama.cpp/bin", symlinks=True)
    shutil.copy(here / "llama.cpp/build.json", home / "build/llama.cpp")
    shutil.copy(model, home / "build/models/小 model.gguf")
    monkeypatch.setenv("QWQLAB_HOME", str(home))
    return home


USE = """
import json, subprocess, sys
from pathlib import Path
from qwqlab import paths
from qwqlab.llamacpp import tool
from qwqlab.cli import main
from qwqlab.sampling import parse_command
from qwqlab.sampling import Engine
from qwqlab.experiments import LOADING
from qwqlab.sampling import Request
from qwqlab.models import requantize
from qwqlab.experiments import RunStore
from qwqlab.sampling import PRESETS
from qwqlab.sandbox import run_python
from qwqlab.experiments import sweep
model = paths.models_dir() / "小 model.gguf"
copy = requantize(model, "Q4_0")
store = paths.runs_dir() / "运行 runs.sqlite"
with Engine(copy, LOADING) as engine, RunStore(store) as kept:
    runs = sweep(engine, [Request("Say it's 你好:\\n", PRESETS["official"], 1, 8)], kept)
    (line,) = [run.command for run in kept.runs()]
code = main(["export", str(store), str(paths.home() / "导出 runs.json")])
box = run_python({"a.py": "print(6 * 7)"}, "a.py", minimum="weak")
print(json.dumps([runs[0].text, line, str(tool("llama-completion")), code, box.stdout]))
"""


def test_everything_works_below_a_path_with_spaces_quotes_and_chinese(
    odd_home: Path, llama_completion: Callable[[Sequence[str]], str]
) -> None:
    checkout = odd_home / "签 出"
    shutil.copytree(CHECKOUT / "qwqlab", checkout / "qwqlab")
    shutil.copytree(CHECKOUT / "data", checkout / "data")
    scratch = odd_home / "临 时"
    scratch.mkdir()
    own = {"PYTHONPATH": str(checkout), "QWQLAB_HOME": str(odd_home), "TMPDIR": str(scratch)}
    env = {**environment(), **own}
    del env["QWQLAB_LLAMA_CPP_BUILD"]
    done = run_python(USE, env=env, cwd=odd_home)
    assert done.returncode == 0, done.stderr
    text, line, tool, code, printed = json.loads(done.stdout.splitlines()[-1])
    assert (code, printed) == (0, "42\n")
    assert tool == str(odd_home / "build/llama.cpp/bin/llama-completion")
    assert len(json.loads((odd_home / "导出 runs.json").read_text(encoding="utf-8"))) == 1
    assert not list(scratch.iterdir())
    # The line as it is pasted into a shell.
    pasted = subprocess.run(
        ["sh", "-c", line],
        env={**os.environ, "PATH": f"{Path(tool).parent}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    assert pasted.stdout.decode().startswith(text)


# A locale that is not UTF-8

CHINESE = "Repeat: é 日本 模型 😀"
TALK = """
import json, os, sys, warnings
warnings.filterwarnings("error", category=EncodingWarning, module=r"qwqlab\\b")
from pathlib import Path
from qwqlab.cli import main
from qwqlab.experiments import read_prompts
from qwqlab.progress import say
from qwqlab.experiments import read_corpus
here = Path(sys.argv[1])
commands = json.loads((here / "commands.json").read_bytes())
codes = [main([os.fsdecode(word.encode()) for word in command]) for command in commands]
read_prompts("flappy_bird")
read_corpus()
say("\\u6a21\\u578b.gguf")
print(codes)
"""


def make_latin_1(folder: Path, lacking: Callable[[str], NoReturn]) -> dict[str, str]:
    name = "en_US.ISO-8859-1"
    made = shutil.which("localedef") and subprocess.run(
        ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(folder / name)],
        capture_output=True,
        check=False,
    )
    if not (folder / name).is_dir():
        lacking(f"no {name} can be made: {made}")
    return {"LOCPATH": str(folder), "LC_ALL": name}


NIGHTLY = [pytest.param(kind, marks=pytest.mark.nightly) for kind in ("Latin-1", "ascii pipes")]


@pytest.mark.parametrize("kind", ["C", *NIGHTLY])
def test_every_command_that_prints_text_does_so_in_any_locale(
    kind: str, model: Path, tmp_path: Path, lacking: Callable[[str], NoReturn]
) -> None:
    env = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "PYTHONIOENCODING": ""}
    if kind == "Latin-1":
        env |= make_latin_1(tmp_path, lacking)
    if kind == "ascii pipes":
        env |= {"PYTHONIOENCODING": "ascii", "LC_ALL": "C.UTF-8"}
    here = tmp_path / "文 件"
    here.mkdir()
    message = {"role": "user", "content": CHINESE}
    (here / "messages.json").write_text(json.dumps([message], ensure_ascii=False), encoding="utf-8")
    (here / "text.txt").write_text(CHINESE, encoding="utf-8")
    (here / "program.py").write_text(f"# {CHINESE}\nprint('{CHINESE}')\n", encoding="utf-8")
    with RunStore(here / "runs.sqlite") as store:
        store.add(make_run(text=CHINESE, label=CHINESE), **ABOUT)
    (here / "模型.gguf").touch()
    text, out, gguf = str(here / "text.txt"), str(here / "模型.csv"), str(here / "模型.gguf")
    commands = [
        ["generate", "--model", str(model), "--prompt-file", text, "-n", "12", "--temp", "0"],
        ["render", "--template", "with-think", "--messages", str(here / "messages.json")],
        ["inspect", str(model)],
        ["tokenize", "--tokenizer", str(model), "--file", text],
        ["labels", "--pad", "<|im_end|>", "--text", CHINESE],
        ["grade", str(here / "program.py")],
        ["audit", "QwQ-32B"],
        ["export", str(here / "runs.sqlite"), out],
        ["path", gguf],
        ["path", "/没有.gguf"],
    ]
    (here / "commands.json").write_text(json.dumps(commands), encoding="utf-8")
    done = run_python(TALK, here, env=environment(**env, PYTHONWARNDEFAULTENCODING="1"))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    *lines, codes = done.stdout.splitlines()
    assert codes == "[0, 0, 0, 0, 0, 1, 0, 0, 0, 1]"
    if kind == "Latin-1":  # which reads the bytes of a file's name as they are
        assert lines[-2:] == [out, gguf]
    assert CHINESE in Path(out).read_text(encoding="utf-8")
