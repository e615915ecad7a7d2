"""A grade as a page shows it: the verdict, the stages, the eight, and the game's pictures."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

from ..grader import Grade
from .drawing import Shown

_CELL = "padding:.2em .6em;text-align:left;vertical-align:top"
_WORDS = {True: "yes", False: "<b>no</b>", None: "not judged"}
_CAPTIONS = {
    "start": "at the start",
    "play": "in play",
    "over": "when lost",
    "again": "after the restart",
    "over again": "lost again",
}


def show_grade(grade: Grade) -> Shown:
    """Return a grade as a notebook shows it; what the program wrote is escaped."""
    stages = [(s.ok, s.name, s.detail) for s in grade.stages]
    rules = [(r.ok, f"{r.number}. {r.text}", r.evidence) for r in grade.requirements]
    pictures = "".join(
        f'<figure style="margin:0"><img width="220" alt="The game {_CAPTIONS[name]}: see the '
        f'evidence above" src="data:image/png;base64,{base64.b64encode(data).decode()}">'
        f"<figcaption>{_CAPTIONS[name]}</figcaption></figure>"
        for name, data in grade.frames
        if name in _CAPTIONS
    )
    page = (
        f"<p><b>{grade.verdict.upper()}</b>: {html.escape(grade.reason)}</p>"
        + _table("The stages", "stage", stages)
        + _table("The eight requirements", "requirement", rules)
        + f'<div style="display:flex;flex-wrap:wrap;gap:1em">{pictures}</div>'
        + f"<p>Ran in isolation: {html.escape(grade.isolation.level)} "
        f"({html.escape(', '.join(grade.isolation.applied))}).</p>"
    )
    return Shown(page, grade.as_text())


def _table(title: str, first: str, rows: Sequence[tuple[bool | None, str, str]]) -> str:
    body = "".join(
        f'<tr><td style="{_CELL}">{_WORDS[ok]}</td>'
        f'<th scope="row" style="{_CELL};font-weight:normal">{html.escape(name)}</th>'
        f'<td style="{_CELL}">{html.escape(seen)}</td></tr>'
        for ok, name, seen in rows
    )
    head = "".join(f'<th scope="col" style="{_CELL}">{h}</th>' for h in ("holds", first, "seen"))
    return (
        f"<table><caption style='text-align:left'>{title}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )
