"""The experiment's report: one HTML file that needs no network and runs nothing of a model's."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from .experiment import ArmResult, summarize
from .plots import draw_trade_off
from .records import Run

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>qwqlab: the experiment</title>
<style>body {{ font: 16px/1.5 sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em }}
table {{ border-collapse: collapse }} td, th {{ padding: .2em .7em; border: 1px solid #bbb }}
pre {{ white-space: pre-wrap; background: #f4f4f4; padding: .7em }}
mark {{ background: #fbd5c0; border-bottom: 2px solid #a33 }}</style>
<h1>The experiment</h1>
<p>Model: {model}. llama.cpp: {build}.</p>
{sentences}{figure}{words}
<h2>Every arm</h2>{table}
<h2>One run of each arm</h2>
<p>Marked: tokens that lie outside what top_k and top_p leave of the model's own distribution.</p>
{samples}</html>
"""


def make_table(results: Sequence[ArmResult]) -> pd.DataFrame:
    """A row for each arm, as counts a person reads."""
    return pd.DataFrame(
        {
            "arm": arm.name,
            "valid code": f"{arm.valid_code}/{arm.runs}",
            "95 %": "{:.0%} to {:.0%}".format(*arm.valid_code_interval),
            "loops": f"{arm.loops}/{arm.long_runs}",
            "runaways": f"{arm.runaways}/{arm.long_runs}",
            "escapes": f"{arm.escape_rate:.1%}",
            "seq-rep-4": f"{arm.seq_rep_4:.2f}",
            "tokens": f"{arm.mean_tokens:.0f}",
        }
        for arm in results
    )


def write_report(
    path: Path,
    results: Sequence[ArmResult],
    samples: Sequence[tuple[Run, Sequence[str]]],
    model: str,
    build: str,
) -> Path:
    """Write the report. samples are runs, each with the text that its tokens added."""
    drawing = draw_trade_off(results)
    figure = drawing.figure.to_html(full_html=False, include_plotlyjs=True)
    page = _PAGE.format(
        model=html.escape(model),
        build=html.escape(build),
        sentences="".join(f"<p>{html.escape(s)}</p>" for s in summarize(results).splitlines()),
        figure=figure,
        words=drawing.words_html(),
        table=make_table(results).to_html(index=False),
        samples="".join(_show(run, steps) for run, steps in samples),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8", errors="replace")
    return path


def _show(run: Run, steps: Sequence[str]) -> str:
    marked = set(run.escapes)
    text = "".join(
        f"<mark>{html.escape(step)}</mark>" if i in marked else html.escape(step)
        for i, step in enumerate(steps)
    )
    return f"<h3>{html.escape(run.request.label)}</h3><pre>{text}</pre>"
