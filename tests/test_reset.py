"""Notebooks put back in real clones, by the command that a student types."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import nbformat
import pytest

from qwqlab.paths import CHECKOUT

FIRST, THIRD, FOURTH = "00_start_here.ipynb", "03_sampler_lab.ipynb", "04_flappy_bird.ipynb"
RELOAD = "One that is open in JupyterLab: File, Reload Notebook from Disk.\n"
NOTHING = "Nothing to reset: the notebooks are as they came.\n"


def git(folder: Path, *args: str) -> str:
    identity = ["-c", "user.name=A teacher", "-c", "user.email=teacher@example.org"]
    plain = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    return subprocess.run(
        ["git", *identity, *args], cwd=folder, env=plain, capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory, lacking: Callable[[str], NoReturn]) -> Path:
    """A repository with the package and the notebooks as they stand here."""
    if shutil.which("git") is None:
        lacking("git is not on PATH")
    folder = tmp_path_factory.mktemp("upstream")
    for name in ("qwqlab", "notebooks"):
        ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
        shutil.copytree(CHECKOUT / name, folder / name, ignore=ignored)
    shutil.copy(CHECKOUT / ".gitignore", folder)
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "The lab")
    return folder


@pytest.fixture
def lab(upstream: Path, tmp_path: Path) -> Path:
    """A student's clone, in a folder with a space and Chinese characters in its name."""
    folder = tmp_path / "我的 notebooks" / "qwqlab 实验"
    folder.parent.mkdir()
    git(tmp_path, "clone", "-q", str(upstream), str(folder))
    return folder


@pytest.fixture
def unpacked(lab: Path) -> Path:
    """The same as an archive leaves it: no .git."""
    shutil.rmtree(lab / ".git")
    return lab


def run(lab: Path, *args: str | Path, program: str = "") -> subprocess.CompletedProcess[str]:
    """`qwqlab reset` with the code of that lab, from a folder that is not the lab's."""
    code = program or "import sys; from qwqlab import cli; sys.exit(cli.main())"
    own = {"QWQLAB_HOME": str(lab), "PYTHONPATH": str(lab), "PYTHONUTF8": "1"}
    return subprocess.run(
        [sys.executable, "-c", code, "reset", *map(str, args)],
        cwd=lab.parent,
        env={**os.environ, **own},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def save(path: Path, notebook: Any) -> bytes:
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path.read_bytes()


def write_answer(path: Path, answer: str = "我的答案 = 42") -> bytes:
    """A student's answer at the end of a notebook, with an output."""
    notebook = load(path)
    output = {"output_type": "stream", "name": "stdout", "text": ["42\n"]}
    cell = {"cell_type": "code", "id": "mine", "metadata": {}, "source": [answer]}
    notebook["cells"].append({**cell, "outputs": [output], "execution_count": 7})
    return save(path, notebook)


def run_only(path: Path) -> bytes:
    """A notebook as JupyterLab saves it after a run: outputs, counts, widgets, times."""
    notebook = load(path)
    output = {"output_type": "stream", "name": "stdout", "text": ["Everything is there.\n"]}
    for count, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            cell.update(outputs=[output], execution_count=count, source="".join(cell["source"]))
            cell["metadata"]["execution"] = {"iopub.status.busy": "2026-01-01T00:00:00Z"}
    notebook["metadata"]["widgets"] = {"application/vnd.jupyter.widget-state+json": {}}
    return save(path, notebook)


def list_kept(lab: Path) -> list[Path]:
    return sorted(path for path in (lab / "kept").rglob("*") if path.is_file())


def test_with_nothing_changed_it_says_so_and_writes_nothing(lab: Path) -> None:
    done = run(lab)
    assert (done.returncode, done.stdout, done.stderr) == (0, NOTHING, "")
    assert not (lab / "kept").exists()


def test_one_command_puts_all_back_and_keeps_what_was_written(lab: Path) -> None:
    notebooks = lab / "notebooks"
    write_answer(notebooks / THIRD)
    run_only(notebooks / FIRST)
    (notebooks / FOURTH).unlink()
    own = notebooks / "我的 notebook.ipynb"
    own.write_text("{}")
    done = run(lab)
    assert (done.returncode, done.stderr) == (0, RELOAD)
    (kept,) = list_kept(lab)
    assert done.stdout.splitlines() == [
        f"{FIRST} is as it came; no cell had changed, so only outputs and the like are gone",
        f"{THIRD} is as it came; yours is kept as {kept.relative_to(lab)}",
        f"{FOURTH} is as it came; it was missing",
    ]
    assert load(kept)["cells"][-1]["source"] == ["我的答案 = 42"]
    assert load(kept)["cells"][-1]["outputs"][0]["text"] == ["42\n"]
    assert git(lab, "status", "--porcelain").splitlines() == [
        '?? "notebooks/\\346\\210\\221\\347\\232\\204 notebook.ipynb"'
    ]
    assert not list(notebooks.glob(".*"))
    assert run(lab).stdout == NOTHING


def test_the_next_reader_begins_with_nothing_solved_where_that_is_asked_for(lab: Path) -> None:
    solve = (
        "from qwqlab.course.exercise import _mark_passed, list_exercises\n"
        "_mark_passed(list_exercises('03_sampler_lab')[0])"
    )
    run(lab, program=solve)
    marks = lab / "build" / "progress"
    assert len(list(marks.iterdir())) == 1
    assert run(lab).stdout == NOTHING and len(list(marks.iterdir())) == 1
    told = "Exercises marked as solved, and no longer: 1.\n"
    assert run(lab, "--progress").stdout == NOTHING + told
    assert not list(marks.iterdir())


def test_only_the_notebooks_that_are_named_are_put_back(lab: Path) -> None:
    for name in (FIRST, THIRD, FOURTH):
        write_answer(lab / "notebooks" / name)
    for name in ("03", "00_start_here", str(lab / "notebooks" / FOURTH)):
        assert run(lab, name).returncode == 0
        assert run(lab, name).stdout == NOTHING
    assert len(list_kept(lab)) == 3


def test_an_earlier_copy_is_never_written_over(lab: Path) -> None:
    for answer in ("a = 1", "a = 2"):
        write_answer(lab / "notebooks" / THIRD, answer)
        assert run(lab, "03").returncode == 0
    assert [load(path)["cells"][-1]["source"] for path in list_kept(lab)] == [["a = 1"], ["a = 2"]]


def test_a_kept_copy_opens_and_its_links_lead_where_they_led(lab: Path) -> None:
    path = lab / "notebooks" / THIRD
    notebook = load(path)
    links = (
        "[a](../qwqlab/paths.py#L1) ![b](<attachment:b.png>) [c](https://e.org/x) [d](#top) [e](no)"
    )
    notebook["cells"].append(
        {"cell_type": "markdown", "id": "l", "metadata": {}, "source": [links]}
    )
    save(path, notebook)
    assert run(lab, "03").returncode == 0
    (kept,) = list_kept(lab)
    nbformat.validate(nbformat.read(kept, as_version=4))
    cells = load(kept)["cells"]
    assert cells[-1]["source"] == [links]
    assert (kept.parent / "../qwqlab/paths.py").is_file()
    assert f"](../notebooks/{FOURTH})" in "".join(cells[-2]["source"])
    assert (kept.parent / "../notebooks" / FOURTH).is_file()
    assert [cell["source"] for cell in cells if cell["cell_type"] == "code"] == [
        cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"
    ]


@pytest.mark.parametrize(
    "content",
    [b'{"cells": [', b"\xff\xfe\x00", b"[]", b'{"cells": [{"source": 1}]}'],
)
def test_what_is_no_notebook_any_more_is_kept_to_the_byte(lab: Path, content: bytes) -> None:
    (lab / "notebooks" / THIRD).write_bytes(content)
    done = run(lab)
    (kept,) = list_kept(lab)
    assert done.stdout.startswith(f"{THIRD} is as it came; what was there is no notebook any more")
    assert kept.read_bytes() == content
    assert git(lab, "status", "--porcelain") == ""


def test_a_name_that_the_lab_does_not_have_changes_nothing(lab: Path) -> None:
    write_answer(lab / "notebooks" / THIRD)
    before = git(lab, "status", "--porcelain")
    done = run(lab, "03", "11_nothing")
    assert done.returncode == 1
    assert "has no notebook '11_nothing'; it has 00_start_here.ipynb, " in done.stderr
    assert git(lab, "status", "--porcelain") == before
    assert not (lab / "kept").exists()


@pytest.fixture
def archives(upstream: Path, tmp_path: Path) -> dict[str, Path]:
    """The lab as a folder, a .zip and a .tar.gz, with one more notebook in a folder below."""
    folder = tmp_path / "fresh copy"
    shutil.copytree(upstream / "notebooks", folder / "notebooks")
    (folder / "notebooks" / "more").mkdir()
    (folder / "notebooks" / "more" / "99.ipynb").write_text("no notebook")
    made = {"folder": folder}
    for kind, form in ((".zip", "zip"), (".tar.gz", "gztar")):
        name = shutil.make_archive(str(tmp_path / "课程 qwqlab"), form, tmp_path, "fresh copy")
        made[kind] = Path(name)
    return made


@pytest.mark.parametrize("kind", ["folder", ".zip", ".tar.gz"])
def test_without_git_they_come_from_what_the_lab_came_in(
    unpacked: Path, archives: dict[str, Path], kind: str
) -> None:
    path = unpacked / "notebooks" / THIRD
    came = path.read_bytes()
    written = write_answer(path)
    done = run(unpacked)
    assert done.returncode == 1
    assert "qwqlab reset --from FILE-OR-FOLDER" in done.stderr
    assert done.stderr.count("\n") == 1
    assert path.read_bytes() == written
    done = run(unpacked, "--from", archives[kind])
    (kept,) = list_kept(unpacked)
    assert done.stdout == f"{THIRD} is as it came; yours is kept as {kept.relative_to(unpacked)}\n"
    assert path.read_bytes() == came
    assert run(unpacked, "--from", archives[kind]).stdout == NOTHING


def test_a_lab_unpacked_into_another_repository_is_not_taken_for_a_checkout(
    unpacked: Path, tmp_path: Path
) -> None:
    git(tmp_path, "init", "-q")
    assert "git cannot read" in run(unpacked).stderr
    (tmp_path / "diary").touch()
    git(tmp_path, "add", "diary")
    git(tmp_path, "commit", "-qm", "Mine")
    assert "git cannot read" in run(unpacked).stderr


def test_where_git_is_not_installed_the_sentence_says_so(lab: Path, tmp_path: Path) -> None:
    program = (
        f"import os; os.environ['PATH'] = {str(tmp_path)!r}\nfrom qwqlab import cli; cli.main()"
    )
    assert "No such file or directory: 'git'" in run(lab, program=program).stderr


def test_what_is_no_archive_of_the_lab_is_refused_in_a_sentence(
    unpacked: Path, tmp_path: Path, archives: dict[str, Path]
) -> None:
    text = tmp_path / "text.zip"
    text.write_text("Not found")
    page = tmp_path / "page"
    (page / "notebooks").mkdir(parents=True)
    (page / "notebooks" / THIRD).write_text("<html>")
    cut = archives[".tar.gz"]
    cut.write_bytes(cut.read_bytes()[:20_000])
    for source, answer in (
        (tmp_path / "no.zip", "cannot be read as a folder of the lab, a .zip or a .tar of it"),
        (text, "cannot be read as a folder of the lab, a .zip or a .tar of it"),
        (cut, "cannot be read as a folder of the lab, a .zip or a .tar of it"),
        (page, f"{THIRD} is no notebook in "),
        (tmp_path, "there are no notebooks in "),
    ):
        done = run(unpacked, "--from", source)
        assert done.returncode == 1
        assert answer in done.stderr
        assert done.stderr.count("\n") == 1
    assert not (unpacked / "kept").exists()


def test_what_cannot_be_kept_is_not_reset(lab: Path) -> None:
    written = write_answer(lab / "notebooks" / THIRD)
    (lab / "kept").write_text("a file where the folder should be")
    done = run(lab)
    assert done.returncode == 1
    assert "what you wrote is where it was" in done.stderr
    assert (lab / "notebooks" / THIRD).read_bytes() == written
    assert not list((lab / "notebooks").glob(".*"))


@pytest.fixture
def others_lab(lab: Path) -> Iterator[Path]:
    """A lab in a folder that somebody without rights can reach, and owns."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        folder = Path(name) / "lab"
        shutil.copytree(lab, folder)
        if os.geteuid() == 0:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, 65534, 65534)
        yield folder
        (folder / "notebooks").chmod(0o755)


# Root may write everywhere; what the command needs is imported while it can still be read.
AS_A_STUDENT = """
import os, sys
from qwqlab import cli
from qwqlab.course import reset
if os.geteuid() == 0:
    os.environ["HOME"] = os.getcwd()
    os.seteuid(65534)
sys.exit(cli.main())
"""


def test_a_folder_that_is_read_only_is_named_and_nothing_is_lost(others_lab: Path) -> None:
    path = others_lab / "notebooks" / THIRD
    written = write_answer(path)
    path.parent.chmod(0o555)
    done = run(others_lab, program=AS_A_STUDENT)
    assert done.returncode == 1
    assert f"{path} cannot be written: Permission denied" in done.stderr
    assert path.read_bytes() == written
    path.parent.chmod(0o755)
    assert run(others_lab, program=AS_A_STUDENT).returncode == 0
    assert load(list_kept(others_lab)[-1])["cells"][-1]["source"] == ["我的答案 = 42"]
