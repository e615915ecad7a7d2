"""The house for those who carry it on: doors, links that lead somewhere, issue forms."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml

from qwqlab.paths import CHECKOUT

PAGES = sorted(
    [*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").glob("*.md"), *(CHECKOUT / "data").glob("*.md")]
)
FORMS = sorted((CHECKOUT / ".github" / "ISSUE_TEMPLATE").glob("[0-9]*.yml"))
INPUTS = {"textarea", "input", "dropdown", "checkboxes"}


def find_doors() -> dict[str, dict[str, str]]:
    """Each room's public names, and the module of the room from which each comes."""
    doors = {}
    for file in CHECKOUT.glob("qwqlab/*/__init__.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        doors[file.parent.name] = {
            alias.name: str(node.module)
            for block in tree.body
            if isinstance(block, ast.If)
            for node in block.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
    del doors["cli"]  # a program, not a room
    return doors


DOORS = find_doors()


def find_names(file: Path) -> set[str]:
    """The names that a module defines at its top, or its folder holds as modules."""
    if not file.is_file():
        return {path.stem for path in file.with_suffix("").glob("*.py")}
    names = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {each.asname or each.name for each in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            bound = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {n.id for each in bound for n in ast.walk(each) if isinstance(n, ast.Name)}
    return names


@pytest.mark.parametrize("room", sorted(DOORS))
def test_what_a_door_names_is_there_and_is_no_module_of_the_room(room: str) -> None:
    folder = CHECKOUT / "qwqlab" / room
    homes = DOORS[room]
    assert {name: home for name, home in homes.items() if name not in find_names(
        folder / f"{home}.py"
    )} == {}  # fmt: skip
    assert homes.keys() & {path.stem for path in folder.iterdir()} == set()


def read_sources() -> Iterator[tuple[str, str]]:
    """The project's Python, without tests and benchmarks, which look into rooms: a name and a text
    for each file and notebook cell."""
    for pattern in ("qwqlab/**/*.py", "docs/*.py"):
        for path in CHECKOUT.glob(pattern):
            yield str(path.relative_to(CHECKOUT)), path.read_text(encoding="utf-8")
    for path in CHECKOUT.glob("notebooks/*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                lines = "".join(cell["source"]).splitlines(keepends=True)
                plain = [line for line in lines if not line.lstrip().startswith(("%", "!"))]
                yield f"notebooks/{path.name}", "".join(plain)


def find_imports(name: str, source: str) -> Iterator[tuple[str, str]]:
    """What a file imports of qwqlab: the absolute name of a module, and a name out of it or ""."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((each.name, "") for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            here = name.removesuffix(".py").split("/")
            parts = here[: len(here) - node.level] if node.level else []
            module = ".".join([*parts, *([node.module] if node.module else [])])
            yield from ((module, each.name) for each in node.names)


def find_breaches(name: str, source: str, may_name_modules: bool = False) -> Iterator[str]:
    """What a file imports past the doors of the rooms that it is not in."""
    for module, imported in find_imports(name, source):
        top, room, *below = [*module.split("."), ""]
        if top != "qwqlab" or name.startswith(f"qwqlab/{room}/"):
            continue
        is_private = imported.startswith("_") and not imported.startswith("__")
        is_inside = room in DOORS and (any(below) or imported not in DOORS[room])
        if is_private or (is_inside and not may_name_modules):
            yield f"{name}: {imported or 'it'} from {module}"


def test_rooms_are_entered_by_their_doors() -> None:
    breaches = {breach for name, source in read_sources() for breach in find_breaches(name, source)}
    assert breaches == set()


def test_tests_and_benchmarks_import_nothing_private() -> None:
    breaches = [
        breach
        for path in (*CHECKOUT.glob("tests/**/*.py"), *CHECKOUT.glob("benchmarks/*.py"))
        for breach in find_breaches(f"tests/{path.name}", path.read_text(encoding="utf-8"), True)
    ]
    assert breaches == []


def test_a_notebook_imports_from_the_lab_in_at_most_eight_lines() -> None:
    lines: dict[str, int] = {}
    for name, source in read_sources():
        if name.startswith("notebooks/"):
            found = re.findall(r"(?m)^\s*(?:from|import) qwqlab\b", source)
            lines[name] = lines.get(name, 0) + len(found)
    assert {name: n for name, n in lines.items() if n > 8} == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    text = re.sub(r"(?ms)^```.*?^```$", "", page.read_text(encoding="utf-8"))
    links = re.findall(r"\]\((?![a-z]+:)([^)#\s]+)", text)
    assert [link for link in links if not (page.parent / unquote(link)).exists()] == []


def test_the_page_on_the_house_is_read_in_five_minutes() -> None:
    page = (CHECKOUT / "docs" / "architecture.md").read_text()
    prose = page.split("| file | holds |")[0]
    assert len(prose.split()) < 400, "what is why goes into docs/decisions.md"


def test_the_changelog_tells_of_this_version_and_of_no_other() -> None:
    changelog = (CHECKOUT / "CHANGELOG.md").read_text()
    version = re.search(r'(?m)^version = "(.+)"$', (CHECKOUT / "pyproject.toml").read_text())
    told = re.findall(r"(?m)^## \[(.+?)\]", changelog)
    assert version is not None and version[1] in changelog
    assert told[0] == "Unreleased"
    assert set(re.findall(r"(?m)^### (.+)$", changelog)) <= {
        *("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security", "Known limits"),
    }


def test_there_is_a_form_for_each_kind_of_issue() -> None:
    names = [yaml.safe_load(form.read_text())["name"] for form in FORMS]
    assert names == ["Something fails", "A number differs", "A sentence misleads", "An idea"]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_a_form_is_one_that_a_host_can_show_and_asks_for_the_doctor(path: Path) -> None:
    form: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert set(form) <= {"name", "description", "title", "labels", "assignees", "body"}
    assert isinstance(form["name"], str) and isinstance(form["description"], str)
    fields = [field for field in form["body"] if field["type"] in INPUTS]
    assert len(fields) == len([f for f in form["body"] if f["type"] != "markdown"])
    for field in fields:
        assert re.fullmatch(r"[\w-]+", field["id"]) and field["attributes"]["label"]
        assert set(field) <= {"type", "id", "attributes", "validations"}
        allowed = {"label", "description", "placeholder", "value", "render"}
        assert set(field["attributes"]) <= allowed
    assert len({field["id"] for field in fields}) == len(fields)
    (doctor,) = [field for field in fields if field["id"] == "doctor"]
    assert "`.venv/bin/qwqlab doctor`" in doctor["attributes"]["description"]
    assert doctor["attributes"]["render"] == "text"


def test_a_failure_and_a_number_need_the_doctors_output_and_the_run() -> None:
    required = {}
    for form in FORMS[:2]:
        body = yaml.safe_load(form.read_text())["body"]
        required[form.stem] = {f["id"] for f in body if f.get("validations", {}).get("required")}
    assert required["1-bug"] >= {"doctor", "steps", "seen"}
    assert required["2-number"] >= {"doctor", "where", "numbers", "config"}
