"""Jupyter broken for real: kernels and extensions that hide this environment's, and what lacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qwqlab.course import doctor_jupyter
from qwqlab.paths import CHECKOUT

MANAGER = "@jupyter-widgets/jupyterlab-manager"
OtherPython = Callable[..., Path]


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


def ask(python: Path, code: str) -> str:
    """What another environment's Python prints, with this checkout's qwqlab."""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    return subprocess.run(
        [python, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout


def write_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Path:
    """A kernel of the name that notebooks ask for, in a folder where Jupyter looks first."""
    folder = tmp_path / "内核 of mine" / "kernels" / "python3"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(text, encoding="utf-8")
    monkeypatch.setenv("JUPYTER_PATH", str(folder.parent.parent))
    return folder


def make_spec(*argv: str) -> str:
    return json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"})


def test_this_environments_kernel_answers() -> None:
    check = doctor_jupyter.check_kernel()
    assert check.ok, check.sentence()
    assert "python3 in " in check.detail


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"argv": [', "Expecting value"),
        (make_spec("/nowhere/python", "{connection_file}"), "/nowhere/python"),
        (make_spec(sys.executable, "-c", "import no_such_module"), "No module named"),
        (make_spec("cat", "/dev/null"), "died"),
        ("[]", ""),
    ],
    ids=["no JSON", "no program", "a program that fails", "a program that ends", "a list"],
)
def test_a_kernel_that_does_not_start_is_named_with_the_folder_to_delete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, reason: str
) -> None:
    folder = write_kernel(tmp_path, monkeypatch, text)
    check = doctor_jupyter.check_kernel()
    assert not check.ok
    assert f"{folder} does not work (" in check.detail
    assert reason in check.detail
    assert check.remedy == f"delete {folder}, which hides this environment's kernel"
    assert "\n" not in check.sentence()


def test_a_kernel_of_another_environment_is_found_out_by_asking_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other_python: OtherPython
) -> None:
    python = other_python()
    argv = (str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}")
    folder = write_kernel(tmp_path, monkeypatch, make_spec(*argv))
    check = doctor_jupyter.check_kernel()
    assert not check.ok
    assert f"runs in {python.parent.parent}, not in {sys.prefix}" in check.detail
    assert str(folder) in check.remedy


def test_jupyterlab_has_what_widgets_and_charts_need() -> None:
    (check,) = doctor_jupyter.check_extensions()
    assert check.ok, check.sentence()
    assert MANAGER in check.detail


def write_extension(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    dependencies: dict[str, str] | None = None,
    script: bool = True,
) -> Path:
    """An extension in a folder where JupyterLab looks before it looks into this environment."""
    folder = tmp_path / "labextensions" / name
    folder.mkdir(parents=True)
    package = {
        "name": name,
        "version": "0.0.1",
        "dependencies": dependencies or {},
        "jupyterlab": {"_build": {"load": "remoteEntry.js", "extension": "./extension"}},
    }
    (folder / "package.json").write_text(json.dumps(package))
    if script:
        (folder / "remoteEntry.js").write_text("")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    return folder


@pytest.mark.parametrize(
    ("name", "broken", "reason"),
    [
        (MANAGER, {"dependencies": {"@jupyterlab/application": "^1.0.0"}}, "cannot load"),
        ("anywidget", {}, "takes version 0.0.1"),
        ("jupyterlab-plotly", {"script": False}, "lacks the script"),
    ],
    ids=["of JupyterLab 1", "older than the package", "without its script"],
)
def test_an_extension_that_hides_this_environments_is_to_be_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, broken: Any, reason: str
) -> None:
    folder = write_extension(tmp_path, monkeypatch, name, **broken)
    (check,) = doctor_jupyter.check_extensions()
    assert not check.ok
    assert name in check.name
    assert reason in check.detail
    assert check.remedy == f"delete {folder}, which hides this environment's"


@pytest.mark.parametrize("key", [MANAGER, f"{MANAGER}:plugin"])
def test_a_disabled_extension_is_named_with_the_file_that_disables_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    file = tmp_path / "labconfig" / "page_config.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"disabledExtensions": {key: True}}))
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))
    (check,) = doctor_jupyter.check_extensions()
    assert not check.ok
    assert MANAGER in check.name
    assert check.remedy == f"take it out of disabledExtensions in {file}"


def test_a_file_that_keeps_jupyterlab_from_starting_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_extension(tmp_path, monkeypatch, "mine") / "package.json"
    file.write_text("{")
    (check,) = doctor_jupyter.check_extensions()
    assert not check.ok
    assert check.remedy == f"delete {file}"


def test_extensions_that_lack_come_with_the_command_that_brings_each(
    other_python: OtherPython,
) -> None:
    code = "from qwqlab.course import doctor_jupyter as d, doctor\n"
    said = ask(other_python(), f"{code}print(doctor.report(d.check_extensions()))").splitlines()
    assert [line.split(":")[0] for line in said[:3]] == [
        f"[FAIL] JupyterLab extension {name}"
        for name in (MANAGER, "anywidget", "jupyterlab-plotly")
    ]
    assert "--force-reinstall --no-deps jupyterlab_widgets==" in said[0]


def test_a_package_that_lacks_is_named_with_the_remedy(other_python: OtherPython) -> None:
    code = "from qwqlab.course import doctor; print(doctor.check_packages('train').sentence())"
    assert "trl is not installed: run `make setup`" in ask(other_python("trl"), code)


def test_a_package_that_the_doctor_itself_needs_ends_in_a_line_as_well(
    other_python: OtherPython,
) -> None:
    code = "from qwqlab import cli; print(cli.main(['doctor', '--json']), cli.main(['doctor']))"
    answer, line, status = ask(other_python("filelock"), code).splitlines()
    assert status == "1 1"
    assert json.loads(answer)["ok"] is False
    assert "filelock" in json.loads(answer)["checks"][0]["detail"]
    assert line.startswith("[FAIL] Python packages: No module named 'filelock': ")


def test_packages_go_in_again_only_when_the_set_ups_mark_is_gone(other_python: OtherPython) -> None:
    python = other_python("plotly")
    mark = python.parent.parent / ".qwqlab"
    mark.touch()
    said = ask(
        python, "from qwqlab.course import doctor; print(doctor.check_packages().sentence())"
    )
    assert f"plotly is not installed: delete {mark}, then run `make setup`" in said
