"""The house for those who carry it on: short modules, links that lead somewhere, issue forms."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml

from qwqlab.paths import CHECKOUT

MOST_LINES = 250
PAGES = sorted(
    [*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").glob("*.md"), *(CHECKOUT / "data").glob("*.md")]
)
FORMS = sorted((CHECKOUT / ".github" / "ISSUE_TEMPLATE").glob("[0-9]*.yml"))
INPUTS = {"textarea", "input", "dropdown", "checkboxes"}


def test_no_module_is_longer_than_an_idea() -> None:
    lengths = {p.name: len(p.read_text().splitlines()) for p in CHECKOUT.glob("qwqlab/*.py")}
    long = {name: n for name, n in lengths.items() if n > MOST_LINES}
    assert not long, f"two ideas each, or one said twice: {long}"


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
