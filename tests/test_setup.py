"""The set-up itself: what is pinned agrees everywhere, and what is missing is said in one line."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from qwqlab import preflight
from qwqlab.experiments import compare, read_evidence
from qwqlab.files import sha256_of
from qwqlab.llamacpp import builds
from qwqlab.paths import CHECKOUT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
SYSTEMS = (("linux", "Linux", "x86_64"), ("darwin", "Darwin", "arm64"))


def read_project() -> dict[str, Any]:
    with (CHECKOUT / "pyproject.toml").open("rb") as file:
        project: dict[str, Any] = tomllib.load(file)["project"]
    return project


def list_requirements() -> list[Requirement]:
    """Every requirement of pyproject.toml, those of the extras included."""
    project = read_project()
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    every = [Requirement(line) for lines in lists for line in lines]
    return [one for one in every if one.name != project["name"]]


def read_pins(python: str, system: tuple[str, str, str]) -> dict[str, Version]:
    """What constraints.txt pins on one Python and one system."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.5",
        "sys_platform": system[0],
        "platform_system": system[1],
        "platform_machine": system[2],
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    pins: dict[str, Version] = {}
    for line in (CHECKOUT / "constraints.txt").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pin = Requirement(line)
        if pin.marker is None or pin.marker.evaluate(dict(environment)):
            (one,) = pin.specifier
            assert one.operator == "==", line
            assert pin.name not in pins, f"{pin.name} is pinned twice on {python}, {system[0]}"
            pins[pin.name] = Version(one.version)
    return pins


def normalise(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: str(system[0]))
def test_every_dependency_is_pinned_inside_its_range(
    python: str, system: tuple[str, str, str]
) -> None:
    pins = read_pins(python, system)
    for needed in list_requirements():
        if needed.marker and not needed.marker.evaluate({"sys_platform": system[0]}):
            continue
        pin = pins.get(normalise(needed.name))
        assert pin is not None, f"{needed.name} is not in constraints.txt"
        assert needed.specifier.contains(pin), f"{needed} is pinned to {pin}"


def test_every_dependency_states_its_reason() -> None:
    text = (CHECKOUT / "pyproject.toml").read_text()
    lists = text[text.index("\ndependencies = [") : text.index("[project.scripts]")]
    bare = [
        line
        for line in lists.splitlines()
        if re.match(r'\s+"', line) and "#" not in line and "qwqlab[" not in line
    ]
    assert bare == []


def test_conda_gets_the_versions_that_pip_gets() -> None:
    environment = yaml.safe_load((CHECKOUT / "environment.yml").read_text())
    plain = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    (python,) = [entry.split("=")[1] for entry in plain if entry.startswith("python=")]
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert python in PYTHONS
    assert "-c constraints.txt" in pip
    assert "-e .[train,dev]" in pip
    for system in SYSTEMS:
        pins = read_pins(python, system)
        named = [line.split()[0] for line in pip if not line.startswith("-")]
        named += [entry.replace("=", "==") for entry in plain if "=" in entry]
        for needed in map(Requirement, named):
            if needed.name != "python":
                assert needed.specifier == Requirement(f"x=={pins[needed.name]}").specifier


def test_the_bindings_and_the_source_of_the_tools_are_one_version() -> None:
    pins = read_pins("3.12", SYSTEMS[0])
    sdist = builds.SDIST
    assert str(pins[sdist.package]) == sdist.version
    (needed,) = [one for one in list_requirements() if one.name == sdist.package]
    assert str(needed.specifier) == f"=={sdist.version}"


def test_the_downloaded_source_is_the_pinned_one(lacking: Callable[[str], NoReturn]) -> None:
    archive = builds.archive_path()
    if not archive.is_file():
        lacking(f"{archive} is not here: llama.cpp was not built from it")
    assert sha256_of(archive) == builds.SDIST.sha256
    assert archive.stat().st_size == builds.SDIST.size


def run_preflight(path: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key not in ("CC", "CXX")}
    return subprocess.run(
        [sys.executable, str(CHECKOUT / "qwqlab" / "preflight.py")],
        env={**environment, "PATH": path, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_preflight_is_silent_where_nothing_is_missing() -> None:
    done = run_preflight(os.environ["PATH"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_preflight_names_each_missing_thing_and_its_remedy_in_one_line(tmp_path: Path) -> None:
    done = run_preflight(str(tmp_path))
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert [line.split(":")[0] for line in lines] == ["C compiler", "C++ compiler", "make"]
    assert all("run `" in line for line in lines)


def test_preflight_refuses_a_python_that_nothing_is_pinned_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no other Python is tried
    supported = Requirement(f"x{read_project()['requires-python']}").specifier
    for minor in range(6, 16):
        assert preflight.check_python((3, minor)).ok == supported.contains(f"3.{minor}")


def test_preflight_asks_for_a_disk_with_room(tmp_path: Path) -> None:
    check = preflight.check_disk(tmp_path / "not" / "yet", need_gb=1e9)
    assert not check.ok
    assert "1000000000.0 GB are needed" in check.sentence()


def test_what_runs_before_the_set_up_can_be_read_by_an_old_python() -> None:
    source = (CHECKOUT / "qwqlab" / "preflight.py").read_text()
    ast.parse(source, feature_version=(3, 6))
    nodes = list(ast.walk(ast.parse(source)))
    imported = {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    imported |= {each.name for n in nodes if isinstance(n, ast.Import) for each in n.names}
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names
    # It came with Python 3.7, and stops an older one before it can say anything.
    assert "__future__" not in imported


@pytest.mark.parametrize(
    "target",
    [
        "help",
        "setup",
        "offline",
        "lab",
        "reproduce",
        "test",
        "coverage",
        "book",
        "pictures",
        "check",
        "clean",
    ],
)
def test_make_knows_the_target(target: str) -> None:
    done = subprocess.run(
        ["make", "-n", target], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("has_gpu", [True, False])
def test_make_lab_brings_unsloth_where_there_is_a_gpu(tmp_path: Path, has_gpu: bool) -> None:
    card = tmp_path / "nvidia-smi"
    card.write_text(f"#!/bin/sh\nexit {0 if has_gpu else 9}\n")
    card.chmod(0o755)
    done = subprocess.run(
        ["make", "-n", "lab", f"VENV={tmp_path}"],
        cwd=CHECKOUT,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ('-e ".[train,unsloth]"' in done.stdout) == has_gpu


def test_make_stops_with_the_missing_thing_named(tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("make", "sh"):
        (folder / name).symlink_to(shutil.which(name) or name)
    done = subprocess.run(
        ["make", "setup", f"VENV={tmp_path / 'venv'}", f"PYTHON={sys.executable}"],
        cwd=CHECKOUT,
        env={"PATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "C++ compiler: no c++" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_the_script_for_continuous_integration_is_a_program() -> None:
    script = CHECKOUT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)


def test_no_file_names_a_registry_or_a_place_on_one_machine() -> None:
    hosts = ["py" + "pi.org", "python" + "hosted.org", "registry." + "npmjs", "deb." + "debian.org"]
    places = ["/work" + "/", "/tmp" + "/w/", "/root" + "/", "/opt" + "/wheels", "/opt" + "/py"]
    found, seen = [], 0
    for path in list_files():
        content = path.read_bytes()
        seen += 1
        if b"\0" not in content:
            text = content.decode("utf-8", "replace")
            found += [f"{path}: {word}" for word in (*hosts, *places) if word in text]
    assert found == []
    assert seen > 100


def list_files() -> Iterator[Path]:
    """The project's own files: all but what .gitignore names, .git and other environments."""
    ignored = [line.rstrip("/") for line in (CHECKOUT / ".gitignore").read_text().split()]
    for folder, names, files in os.walk(CHECKOUT):
        names[:] = [
            name
            for name in names
            if name != ".git"
            and not any(fnmatch(name, pattern) for pattern in ignored)
            and not (Path(folder) / name / "pyvenv.cfg").exists()
        ]
        for name in files:
            if name != ".git" and not any(fnmatch(name, pattern) for pattern in ignored):
                yield Path(folder) / name


def load_notebook_checks() -> Any:
    spec = importlib.util.spec_from_file_location(
        "check_notebooks", CHECKOUT / "tests" / "check_notebooks.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_notebook(path: Path, *cells: dict[str, Any]) -> None:
    numbered = [{"id": f"c{number}", "metadata": {}, **cell} for number, cell in enumerate(cells)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {
        "cells": numbered,
        "metadata": {"kernelspec": kernel},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    path.write_text(json.dumps(notebook))


def write_code(source: str, **more: Any) -> dict[str, Any]:
    bare: dict[str, Any] = {
        "cell_type": "code",
        "source": source,
        "outputs": [],
        "execution_count": None,
    }
    return {**bare, **more}


def write_prose(source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "source": source}


@pytest.mark.parametrize(
    ("cells", "fault"),
    [
        ([write_code("1 + 1", execution_count=3)], "it keeps what a run left behind"),
        ([write_code("\n".join("a = 1" for _ in range(16)))], "cell 2 has 16 lines"),
        ([write_prose("# Another title")], "it has 2 H1"),
        ([write_prose("![](a.png)")], "cell 2 shows a.png with no text in its place"),
        ([write_prose("[there](no_such_file.md)")], "cell 2 links to no_such_file.md"),
        ([write_prose('<img src="a.png" alt="">')], "cell 2 shows an image with no text"),
        ([write_code("plots.draw(run)"), write_prose("## Next")], "cell 2 shows a figure"),
        ([write_code("panel.figure")], "cell 2 shows a figure"),
        ([write_code("1", id="c0")], "a cell has no id, or the id of another"),
    ],
)
def test_a_notebook_out_of_form_is_refused(
    cells: list[dict[str, Any]], fault: str, tmp_path: Path
) -> None:
    path = tmp_path / "00.ipynb"
    write_notebook(path, write_prose("# Title"), *cells)
    faults = list(load_notebook_checks().find_faults(path))
    assert any(one.startswith(fault) for one in faults), faults


def test_a_notebook_in_form_passes_and_a_run_one_can_be_stripped(tmp_path: Path) -> None:
    checks = load_notebook_checks()
    path = tmp_path / "00.ipynb"
    (tmp_path / "01.ipynb").write_text("{}")
    cells = [
        write_prose("# Title\n```\n# not a title\n![](x)\n```"),
        write_code("plots.draw(run)", execution_count=1, outputs=[{"output_type": "stream"}]),
        write_prose("The curve falls."),
        write_code("%time\nshow_figure(run)"),
        write_prose("[Next](01.ipynb)"),
    ]
    write_notebook(path, *cells)
    path.write_text(checks.tidy(path.read_text()))
    assert checks.tidy(path.read_text()) == path.read_text()
    assert list(checks.find_faults(path)) == []


def test_the_numbers_of_the_readme_are_those_that_were_measured() -> None:
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    arms = {arm.name: arm for arm in read_evidence("smollm2-135m").arms}
    row = r"(?m)^\| (.+?) \| (\d+) of (\d+) \| (\d+) of \d+ \| (\d+) of (\d+) \|$"
    told = re.findall(row, readme)
    assert len(told) == 8
    for name, *numbers in told:
        rates = [arms[name].rate(measure) for measure in ("valid", "right", "loops")]
        valid, n, right, loops, n_long = map(int, numbers)
        assert [(each.count, each.n) for each in rates] == [
            (valid, n), (right, n), (loops, n_long)
        ], name  # fmt: skip
    assert arms["article's list, 1.1"].same_texts(arms["article's list, 1.5"])
    base = arms["no penalty"]
    for name, measure in (
        ("llama.cpp order, 1.1", "valid"),
        ("article's list with penalties, 1.1", "valid"),
        ("DRY alone", "right"),
    ):
        low, high = compare(arms[name], base, measure).interval
        assert f"{100 * low:+.0f} to {100 * high:+.0f} points" in readme, name
    copied = ("no penalty", "DRY alone", "DRY alone, window 64", "article's list, 1.1")
    assert [arms[name].rate("copies").count for name in copied] == [13, 0, 0, 2]
    assert "copies 13 without a penalty and 0 with DRY" in readme and "list 2." in readme
    assert base.rate("early_loops").count == 9 and "(9 within 500 tokens)" in readme
