"""The experiment's report: one HTML file that needs no network; what models wrote stays text."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from .. import files
from ..experiments import ArmResult, check_run, find_break, measure, summarize
from ..sampling import Engine, Run
from .drawing import Shown, table_html
from .run_text import decode_steps, show_run
from .trade_off import draw_trade_off

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>qwqlab: the experiment</title>
<style>body {{ font: 16px/1.5 sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em }}
pre {{ white-space: pre-wrap; border-left: 3px solid #bbb; padding-left: .7em }}
table {{ border-collapse: collapse }} td, th {{ padding: .2em .7em; border: 1px solid #bbb }}
</style>
<main><h1>The experiment</h1>
<p>Model: {model}. llama.cpp: {build}.</p>
{sentences}{figure}{words}
<h2>Every arm</h2>{table}
<p>{legend}</p>
<p>The number behind an order is its repeat_penalty; llama.cpp's order without penalties is
DRY alone.</p>
<h2>One run of each arm</h2>
<p>The same prompt and seed in every arm: the first that no penalty solves and repeat_penalty 1.1
in llama.cpp's order does not, where there is one. Underlined: escapes, tokens that lie outside what
top_k and top_p leave of the model's own distribution. In white on red: the token that is
blamed for a broken program, the first escape on the line that fails or else the last one before it;
in a program without escapes, where the model itself went wrong, the first token of that line.
Seconds are those of the whole batch that a run was part of.</p>
<pre>{prompt}</pre>
{samples}</main></html>
"""


LEGEND = """\
valid code: programs whose first code block parses and binds every name that it uses; of a model
that thinks, the last code block of the answer.
loops, runaways: long runs that end in a cycle, and that met their limit without an end token.
answer loops: those of the loops that are in an answer and not in the thinking before it.
thinking loops, unclosed: of all runs that think, those whose thinking ends in a cycle, and those
whose thinking never ends.
escapes: tokens drawn from outside what top_k and top_p leave of the model's own distribution.
seq-rep-4: the share of a run's sequences of four tokens that repeat an earlier one.
tokens: the mean length of a run."""


def make_table(results: Sequence[ArmResult]) -> pd.DataFrame:
    """Return a table with a row for each arm: counts, their 95 % intervals, means."""
    return pd.DataFrame(
        {
            "arm": arm.name,
            "valid code": f"{arm.valid_code}/{arm.runs}",
            "valid, 95 %": "{:.0%} to {:.0%}".format(*arm.valid_code_interval),
            "loops": f"{arm.loops}/{arm.long_runs}",
            "loops, 95 %": "{:.0%} to {:.0%}".format(*arm.loops_interval),
            "runaways": f"{arm.runaways}/{arm.long_runs}",
            "runaways, 95 %": "{:.0%} to {:.0%}".format(*arm.runaways_interval),
            "answer loops": f"{arm.answer_loops}/{arm.long_runs}",
            "thinking loops": f"{arm.thinking_loops}/{arm.thinking}",
            "unclosed": f"{arm.unclosed}/{arm.thinking}",
            "escapes": f"{arm.escape_rate:.1%}",
            "seq-rep-4": f"{arm.seq_rep_4:.2f}",
            "tokens": f"{arm.mean_tokens:.0f}",
        }
        for arm in results
    )


def write_report(
    path: Path,
    results: Sequence[ArmResult],
    samples: Sequence[Shown],
    prompt: str,
    model: str,
    build: str,
) -> Path:
    """Write the report, whole or not at all, and return its path.

    samples: the runs of `pick_samples`, as `show_sample` marks them; prompt: what they answer.
    """
    drawing = draw_trade_off(results)
    page = _PAGE.format(
        model=html.escape(model),
        build=html.escape(build),
        sentences="".join(f"<p>{html.escape(s)}</p>" for s in summarize(results).splitlines()),
        figure=drawing.figure_html(),
        words=drawing.words_html(),
        table=table_html(make_table(results)),
        legend=html.escape(LEGEND).replace("\n", "<br>"),
        prompt=html.escape(prompt),
        samples="".join(sample.html for sample in samples),
    )
    return files.write_text(path, page, errors="replace")


def pick_samples(runs: Sequence[Run]) -> list[Run]:
    """Return one run of a code prompt for each arm, all of the same prompt and seed.

    The first that "no penalty" solves and "llama.cpp order, 1.1" does not, or else the first.
    """
    code: dict[str, list[Run]] = {}
    for run in runs:
        arm, kind = run.request.label.rsplit(" | ", 1)
        if kind == "code":
            code.setdefault(arm, []).append(run)
    pairs = zip(code["no penalty"], code["llama.cpp order, 1.1"], strict=True)
    telling = (
        i
        for i, (plain, mild) in enumerate(pairs)
        if measure(plain).valid_code and not measure(mild).valid_code
    )
    place = next(telling, 0)
    return [arm_runs[place] for arm_runs in code.values()]


def show_sample(run: Run, engine: Engine) -> Shown:
    """Return a run's text, its escapes and the token that broke its program marked."""
    step = find_break(run, list(decode_steps(run, engine)))
    verdict = check_run(run).reason or "valid"
    title = f"{run.request.label.rsplit(' | ', 1)[0]} ({verdict})"
    return show_run(run, engine, breaking=step, title=title)
