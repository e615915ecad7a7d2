"""The doctor on this machine, and where something is broken for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from qwqlab import cli
from qwqlab.course import doctor
from qwqlab.errors import ToolchainError
from qwqlab.llamacpp import tools
from qwqlab.models import catalog
from qwqlab.paths import CHECKOUT
from qwqlab.preflight import Check

MANAGER = "@jupyter-widgets/jupyterlab-manager"
OtherPython = Callable[..., Path]


def test_all_is_well_once_the_set_up_has_run(
    model_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = cli.main(["doctor", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert [check for check in told["checks"] if not check["ok"]] == []
    assert (status, told["ok"]) == (0, True)
    details = {check["name"]: check["detail"] for check in told["checks"]}
    assert len(details) == len(told["checks"])
    assert str(tools.library_dir()) in details["An answer"]
    assert "8 tokens" in details["An answer"]
    assert "python3 in " in details["Jupyter kernel"]


def test_a_home_that_is_not_there_fails_its_checks_and_ends_none_of_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QWQLAB_HOME", "~no_such_person/lab")
    monkeypatch.delenv("QWQLAB_LLAMA_CPP_BUILD", raising=False)
    assert cli.main(["doctor", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    assert {tuple(check) for check in told["checks"]} == {("name", "ok", "detail", "remedy")}
    assert all(check["remedy"] == "" for check in told["checks"] if check["ok"])
    assert not any("\n" in check["detail"] for check in told["checks"])
    failed = {check["name"]: check for check in told["checks"] if not check["ok"]}
    assert failed["Embedded model"]["remedy"] == "run `qwqlab fetch smollm2-135m`"
    assert failed["QwQ-32B's vocabulary"]["remedy"] == "run `qwqlab fetch qwq-32b-ranks`"
    assert failed["llama.cpp"]["detail"] == "llama.cpp is not built: run `make setup`."
    assert "Jupyter kernel" not in failed


def test_a_build_that_does_not_load_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in tools.library_dir().iterdir():
        (tmp_path / file.name).symlink_to(file)
    for library in tmp_path.glob("libllama.*"):
        library.unlink()
        library.write_bytes(b"cut short")
    monkeypatch.setenv("QWQLAB_LLAMA_CPP_BUILD", str(tmp_path))
    check = doctor.check_answer()
    assert not check.ok and check.remedy, check.sentence()
    assert "\n" not in check.sentence()


@pytest.mark.parametrize("damage", ["one bit", "the last byte"])
def test_damage_to_a_catalogued_file_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_path: Path, damage: str
) -> None:
    monkeypatch.setenv("QWQLAB_HOME", str(tmp_path))
    models = tmp_path / "build" / "models"
    models.mkdir(parents=True)
    name = catalog.QWQ_RANKS.filename
    content = bytearray((model_path.parent / name).read_bytes())
    if damage == "one bit":
        content[len(content) // 2] ^= 1
    else:
        content.pop()
    (models / name).write_bytes(content)
    (models / catalog.EMBEDDED.filename).mkdir()
    model, vocabulary = doctor.check_model(), doctor.check_vocabulary()
    assert "Is a directory" in model.sentence()
    assert not vocabulary.ok and f"{models / name} has sha256 " in vocabulary.detail
    assert vocabulary.remedy == f"delete it, then run `qwqlab fetch {catalog.QWQ_RANKS.name}`"


def test_the_model_of_the_notebooks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "the best that is here and fits" in doctor.check_choice().detail
    monkeypatch.setenv("QWQLAB_MODEL", "README.md")
    check = doctor.check_choice()
    assert not check.ok and "README.md" in check.detail and "QWQLAB_MODEL" in check.remedy


def test_a_graphics_card_is_shown_with_its_memory_and_the_layers_that_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card = {"name": "CUDA0", "description": "A card", "free": 23 << 30, "total": 24 << 30}
    said = doctor.describe_devices([card])
    assert said == (
        "A card (CUDA0), 25.8 GB of memory, of which 24.7 GB are free; 62 of 65 layers of "
        "QwQ-32B:Q4_K_M fit, with 16,384 tokens"
    )
    for device in doctor.probe_devices()["devices"]:
        assert doctor.check_gpu().detail.startswith(device["description"])
    monkeypatch.setattr(doctor, "_ask", lambda _: {"devices": [card]})
    assert doctor.check_gpu().detail == said


def test_a_graphics_driver_that_does_not_answer_is_no_failure_but_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho No devices were found; exit 6\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    check = doctor.check_gpu()
    assert check.ok
    assert "none that nvidia-smi lists" in check.detail


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise ValueError('one\\ntwo')", "two"),
        ("import os; os.abort()", "signal 6"),
        ("while True: pass", r"did not end within 0\.5 seconds"),
    ],
)
def test_a_question_that_ends_badly_has_one_line_for_an_answer(
    code: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "PATIENCE", 0.5)
    with pytest.raises(ToolchainError, match=reason):
        doctor.run_own_python("-c", code)


def test_a_package_is_held_against_what_pyproject_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["plotly>=7,<8", "jinja2<1", "no-such-package-here", "peft; extra == 'train'"]
    monkeypatch.setattr(metadata, "requires", lambda name: asked)
    detail = doctor.check_packages().detail
    assert detail.startswith("jinja2 is ")
    assert detail.endswith(", not <1; no-such-package-here is not installed")


@pytest.fixture
def other_python(tmp_path: Path) -> OtherPython:
    """A function that makes another environment, and gives its Python.

    It has this one's packages, but for those whose files begin with one of `without`; what lies
    in share/jupyter it has not.
    """

    def make(*without: str) -> Path:
        folder = tmp_path / "another environment"
        venv.create(folder, symlinks=True)
        (packages,) = folder.glob("lib/python*/site-packages")
        for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
            if not entry.name.startswith(without):
                (packages / entry.name).symlink_to(entry)
        return folder / "bin" / "python"

    return make


def ask(python: Path, check: str) -> str:
    """What the doctor of another environment says, with this checkout's qwqlab."""
    return subprocess.run(
        [python, "-c", f"from qwqlab.course import doctor; print(doctor.{check}.sentence())"],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_packages_that_are_missing_are_named_even_those_of_the_lab_itself(
    other_python: OtherPython,
) -> None:
    python = other_python("filelock", "trl")
    assert "filelock is not installed: run `make setup`" in ask(python, "check_packages()")
    mark = python.parent.parent / ".qwqlab"
    mark.touch()  # the set-up installs nothing while it is there
    said = ask(python, "check_training_packages()")
    assert f"trl is not installed: delete {mark}, then run `make setup`" in said


def write_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *argv: str) -> Path:
    """A kernel of the name that notebooks ask for, in a folder where Jupyter looks first."""
    folder = tmp_path / "内核 of mine" / "kernels" / "python3"
    folder.mkdir(parents=True)
    spec = {"argv": argv, "display_name": "Python 3", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    monkeypatch.setenv("JUPYTER_PATH", str(folder.parent.parent))
    return folder


def test_a_kernel_that_does_not_start_comes_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_kernel(tmp_path, monkeypatch, sys.executable, "-c", "import no_such_module")
    check = doctor.check_kernel()
    assert not check.ok and "died" in check.detail
    assert "kernelspec list" in check.remedy and "\n" not in check.sentence()


def test_a_kernel_of_another_environment_is_found_out_by_asking_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other_python: OtherPython
) -> None:
    python = str(other_python())
    argv = (python, "-m", "ipykernel_launcher", "-f", "{connection_file}")
    folder = write_kernel(tmp_path, monkeypatch, *argv)
    check = doctor.check_kernel()
    assert not check.ok
    assert f"{folder} runs in {Path(python).parent.parent}, not in {sys.prefix}" in check.detail


@pytest.mark.parametrize(
    "key", [MANAGER, pytest.param(f"{MANAGER}:plugin", marks=pytest.mark.nightly)]
)
def test_a_disabled_extension_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    file = tmp_path / "labconfig" / "page_config.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"disabledExtensions": {key: True}}))
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))
    check = doctor.check_extensions()
    assert not check.ok
    assert check.detail.startswith(f"{MANAGER}: ")


@pytest.mark.nightly
def test_an_extension_for_another_jupyterlab_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "labextensions" / "anywidget"
    folder.mkdir(parents=True)
    package = {
        "name": "anywidget",
        "version": "0.0.1",
        "dependencies": {"@jupyterlab/application": "^1.0.0"},
        "jupyterlab": {"_build": {"load": "remoteEntry.js", "extension": "./extension"}},
    }
    (folder / "package.json").write_text(json.dumps(package))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    assert doctor.check_extensions().detail.startswith("anywidget: ")


@pytest.mark.nightly
def test_extensions_that_are_missing_come_with_the_command_that_installs_them(
    other_python: OtherPython,
) -> None:
    said = ask(other_python(), "check_extensions()")
    assert f"{MANAGER}, anywidget, jupyterlab-plotly: not found" in said
    assert (
        "--force-reinstall --no-deps -c" in said and "jupyterlab_widgets anywidget plotly`" in said
    )


def test_the_report_marks_each_line_and_gives_remedies_only_where_something_fails() -> None:
    good = Check("make", True, "/usr/bin/make", "run something")
    bad = Check("C compiler", False, "no cc", "run `xcode-select --install`")
    assert doctor.report_checks([good, bad]).splitlines() == [
        "[OK] make: /usr/bin/make",
        "[FAIL] C compiler: no cc: run `xcode-select --install`",
        "1 of 2 checks failed.",
    ]
    assert doctor.report_checks([good]).splitlines()[-1] == "Everything is there."
