"""The notebooks as a course: contracts, exercises and their stubs, progress, generated parts."""

from __future__ import annotations

import ast
import builtins
import json
import re
from pathlib import Path

import pytest
from notebook_parts import fill_notebook, write_call

from qwqlab.course import UNANSWERED, exercise, list_exercises, read_course, start_here
from qwqlab.course import notebooks as course
from qwqlab.course.exercise import KINDS, Hint, expect, make_stub
from qwqlab.errors import SettingError
from qwqlab.paths import CHECKOUT

COURSE = read_course()
EXERCISES = [each for notebook in COURSE for each in list_exercises(notebook.path.stem)]
names = pytest.mark.parametrize(
    "each", EXERCISES, ids=[f"{each.notebook}-{each.name}" for each in EXERCISES]
)


@exercise.exercise(
    "build",
    solution="def double(n):\n    return 2 * n",
    wrong=[("double = lambda n: n", "twice")],
)
def doubling(double: object, base: int) -> None:
    """Build `double`."""
    assert callable(double)
    expect(double(base) == 2 * base, "twice as much is asked for")


@pytest.fixture(autouse=True)
def own_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWQLAB_PROGRESS", str(tmp_path / "progress"))


def test_every_notebook_has_something_to_predict_to_change_and_to_build() -> None:
    assert len(COURSE) == 10
    for notebook in COURSE:
        assert {each.kind for each in list_exercises(notebook.path.stem)} == set(KINDS)


@names
def test_a_stub_gives_nothing_away_and_counts_as_unanswered(each: exercise.Exercise) -> None:
    given: dict[str, object] = {}
    exec(each.stub, given)
    values = [given.get(name) for name in each.asked]
    assert each(*values).sentence == UNANSWERED
    assert "..." in each.stub and len(each.stub) < 60
    assert len(each.wrong) >= 2 and all(hint != "wrong" for _, hint in each.wrong)


def names_in(source: str) -> tuple[set[str], set[str]]:
    """The names that a piece of Python binds, wherever in it, and those that it uses besides."""
    nodes = list(ast.walk(ast.parse(source)))
    bound = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    bound |= {n.asname or n.name for n in nodes if isinstance(n, ast.alias)}
    bound |= {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    bound |= {n.arg for n in nodes if isinstance(n, ast.arg)}
    return bound, {n.id for n in nodes if isinstance(n, ast.Name)} - bound


@pytest.mark.parametrize("notebook", COURSE, ids=[each.path.stem for each in COURSE])
def test_what_an_exercise_uses_is_there_in_its_notebook(notebook: course.Notebook) -> None:
    cells = json.loads(notebook.path.read_text(encoding="utf-8"))["cells"]
    bound = set(dir(builtins))
    for cell in cells:
        if cell["cell_type"] == "code":
            bound |= names_in("".join(cell["source"]))[0]
    for each in list_exercises(notebook.path.stem):
        for source in (each.solution, write_call(each), *(answer for answer, _ in each.wrong)):
            assert names_in(source)[1] <= bound, (each.name, source)


def test_an_answer_gets_the_hint_of_its_misconception_or_right() -> None:
    assert doubling(lambda n: n, 2).sentence == "Not yet: twice as much is asked for"
    assert not exercise.has_passed(doubling)
    outcome = doubling(lambda n: n + n, 2)
    assert outcome.passed and outcome.sentence == "Right."
    assert exercise.has_passed(doubling)


def test_an_answer_that_raises_is_no_traceback() -> None:
    outcome = doubling(lambda: 1, 2)
    assert not outcome.passed and "this answer can't be checked (TypeError" in outcome.sentence


def test_a_hint_is_shown_as_text_and_not_as_markup() -> None:
    outcome = exercise.Checked(False, "<script>alert(1)</script>")
    assert "&lt;script&gt;" in outcome._repr_html_()


def test_a_right_answer_counts_where_progress_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QWQLAB_PROGRESS", str(tmp_path / "file" / "below"))
    assert doubling(lambda n: 2 * n, 3).passed
    assert not exercise.has_passed(doubling)


def test_progress_names_what_is_still_open() -> None:
    before = course.draw_progress(COURSE)
    assert "0 of 3 | 1 (predict), 2 (change), 3 (build) |" in before.splitlines()[2]
    assert start_here.idle_presets({"article"}).passed
    assert "1 of 3 | 2 (change), 3 (build) |" in course.draw_progress(COURSE).splitlines()[2]


def test_links_of_the_progress_lead_to_the_notebooks_from_wherever_it_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept" / "2026-01-01"
    for folder in (COURSE[0].path.parent, kept):
        folder.mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(folder)
        (target,) = re.findall(
            r"\((\S+00_start_here\.ipynb|00_start_here\.ipynb)\)", course.draw_progress(COURSE)
        )
        assert (folder / target).resolve() == COURSE[0].path


def test_a_stub_keeps_the_names_that_the_check_asks_for_and_no_others() -> None:
    solution = "import math\nhelper = 3\nanswer = helper + 1"
    assert make_stub(solution, ["answer"]) == "answer = ..."


def test_hints_are_exceptions_that_only_checks_raise() -> None:
    with pytest.raises(Hint, match="no"):
        expect(False, "no")
    expect(True, "no")


def test_a_contract_out_of_form_names_the_file(tmp_path: Path) -> None:
    content = json.loads(COURSE[0].path.read_text(encoding="utf-8"))
    content["metadata"]["qwqlab"]["colour"] = "red"
    path = tmp_path / "00_broken.ipynb"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(SettingError, match=r"00_broken.ipynb holds no contract"):
        course.read_notebook(path)


def test_the_contracts_agree_with_what_was_measured() -> None:
    """docs/measured.json is what `make book AT_ONCE=1` wrote, on the machine that it names."""
    measured = json.loads((CHECKOUT / "docs" / "measured.json").read_text())["notebooks"]
    assert set(measured) == {each.path.stem for each in COURSE}
    for notebook in COURSE:
        took, contract = measured[notebook.path.stem], notebook.contract
        assert took["memory_gb"] <= contract.memory_gb <= took["memory_gb"] + 1.5, notebook.path
        assert took["disk_gb"] <= contract.disk_gb, notebook.path
        assert took["minutes"] / 1.5 <= contract.minutes <= 2 * took["minutes"] + 1, notebook.path


def test_what_is_generated_is_written_where_its_mark_stands() -> None:
    place = 3
    content = json.loads(COURSE[place].path.read_text(encoding="utf-8"))
    name = list_exercises(COURSE[place].path.stem)[0].name
    mark = {"cell_type": "markdown", "id": "x", "metadata": {"exercise": name}, "source": ""}
    cells = [cell for cell in content["cells"] if cell["metadata"].get("exercise") != name]
    content["cells"] = [cells[0], mark, *cells[1:]]
    fill_notebook(content, COURSE, place)
    written = [cell for cell in content["cells"] if cell["metadata"].get("exercise") == name]
    assert [cell["metadata"]["tags"] for cell in written] == [
        ["exercise-question"], ["exercise-stub"], ["exercise-check"], ["exercise-solution"]
    ]  # fmt: skip
    assert "**Previous:** [02" in content["cells"][-1]["source"]
    content["cells"] = cells
    with pytest.raises(ValueError, match="has no cell"):
        fill_notebook(content, COURSE, place)
