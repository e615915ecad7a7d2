"""Notebook 05 as a reader meets it: in JupyterLab, with a mouse and a keyboard, offline."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_page import LabPage, open_notebook
from playwright.sync_api import Locator, expect

from qwqlab.models import read_template
from qwqlab.paths import CHECKOUT
from qwqlab.widgets.think import OWN

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def lab(chromium: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabPage]:
    """The notebook, run to its end but for its long runs, which nbmake does."""
    path = CHECKOUT / "notebooks" / "05_think_token.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    kept = [cell for cell in cells if cell["id"].split("-")[0] not in ("count", "empty", "qwq")]
    with open_notebook(kept, tmp_path_factory.mktemp("lab"), chromium) as lab:
        lab.run_all(timeout=900)
        yield lab


@pytest.fixture
def panel(lab: LabPage) -> Locator:
    """The panel, with the template that it starts from."""
    panel = lab.page.locator(".qwqlab-think")
    panel.scroll_into_view_if_needed()
    panel.locator(".qwqlab-template textarea").fill(read_template("with-think"))
    expect(panel.get_by_text("It equals with-think.")).to_be_visible()
    return panel


def prompt_of(panel: Locator) -> str:
    return panel.locator(".qwqlab-prompt [role=group]").text_content() or ""


def test_an_edit_of_the_template_changes_the_prompt(lab: LabPage, panel: Locator) -> None:
    before = prompt_of(panel)
    assert before.endswith("<|im_start|>assistant\n<think>\n")
    edited = read_template("with-think").replace("<think>", "<reason>")
    field = panel.locator(".qwqlab-template textarea")
    lab.changes(lambda: prompt_of(panel), lambda: field.fill(edited))
    assert prompt_of(panel) == before.replace("<think>", "<reason>")


def test_the_keyboard_alone_edits_the_template(lab: LabPage, panel: Locator) -> None:
    field = panel.locator(".qwqlab-template textarea")
    field.focus()
    lab.page.keyboard.press("Control+Home")
    lab.changes(lambda: prompt_of(panel), lambda: lab.page.keyboard.type("Note:"))
    expect(panel.locator(".qwqlab-prompt [role=group]")).to_contain_text("Note:<|im_start|>user")


def test_a_broken_tag_is_told_and_mended(lab: LabPage, panel: Locator) -> None:
    field = panel.locator(".qwqlab-template textarea")
    field.fill("{% if %}")
    expect(panel.locator(".qwqlab-status")).to_contain_text("is no Jinja (line 1)")
    field.fill("{{ messages[0].content }}")
    expect(panel.locator(".qwqlab-status")).to_have_text("")
    prompt = panel.locator(".qwqlab-prompt [role=group]")
    expect(prompt).to_have_text("Write a Python function that adds two numbers.")


def test_another_template_is_chosen(lab: LabPage, panel: Locator) -> None:
    panel.locator("select").first.select_option(OWN)
    expect(panel.locator(".qwqlab-prompt [role=group]")).to_contain_text("named SmolLM")


def test_generate_writes_and_stop_ends_it(lab: LabPage, panel: Locator) -> None:
    panel.get_by_role("button", name="Generate").click()
    thinking = panel.get_by_role("group", name="thinking")
    expect(thinking).not_to_be_empty()
    stop = panel.get_by_role("button", name="Stop")
    if stop.is_enabled():
        stop.click()
    expect(panel.get_by_text("The prompt opened the thinking", exact=False)).to_be_visible()
    expect(panel.get_by_role("button", name="Generate")).to_be_enabled()


def test_the_page_asked_for_nothing_outside_this_machine(lab: LabPage) -> None:
    assert lab.outside == []
