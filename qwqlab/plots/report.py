"""The experiment's report: one HTML file that needs no network; what models wrote stays text."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from .. import files
from ..experiments import MEASURES, ArmResult, check_run, find_break, measure, summarize
from ..sampling import Engine, Run
from .arms import draw_arms
from .drawing import Shown, table_html
from .run_text import decode_steps, show_run

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
<p>The number behind an order is its repeat_penalty. DRY alone has llama.cpp's order without
penalties.</p>
<h2>One run of each arm</h2>
<p>The same prompt and seed in every arm: the first that is right with no penalty and not with
repeat_penalty 1.1 in llama.cpp's order, where there is one. Underlined: escapes, tokens that lie
outside what top_k and top_p leave of the model's own distribution. In white on red: the token that
is blamed for a broken program, the first escape on the line that fails or else the last one before
it; in a program without escapes, where the model itself went wrong, the first token of that line.
Seconds are those of the whole batch that a run was part of.</p>
<pre>{prompt}</pre>
{samples}</main></html>
"""


LEGEND = """\
valid programs: their first code block parses and binds every name that it uses; of a model that
thinks, the last code block of the answer. right programs pass their tests too.
loops, runaways: long runs that end in a cycle, and that met their limit without an end token.
answers: long texts that name what the prompt asks for, and don't end in a cycle.
exact copies: the text is there to the letter.
answer loops: those of the loops that are in an answer and not in the thinking before it.
thinking loops, unclosed: of all runs that think, those whose thinking ends in a cycle, and those
whose thinking never ends.
escapes: tokens drawn from outside what top_k and top_p leave of the model's own distribution.
seq-rep-4: the share of a run's sequences of four tokens that repeat an earlier one.
tokens: the mean length of a run.
Intervals are 95 %; whole prompts are drawn anew for them."""


def make_table(results: Sequence[ArmResult]) -> pd.DataFrame:
    """Return a table with a row for each arm: counts, their 95 % intervals, means."""
    return pd.DataFrame(map(_make_row, results)).fillna("")


def _make_row(arm: ArmResult) -> dict[str, str]:
    row = {"arm": arm.name}
    for name in arm.outcomes:
        found, title = arm.rate(name), MEASURES[name].title
        row[title] = f"{found.count}/{found.n}"
        row[f"{title}, 95 %"] = "{:.0%} to {:.0%}".format(*found.interval)
    if arm.thinking:
        row["answer loops"] = str(arm.answer_loops)
        row["thinking loops"] = f"{arm.thinking_loops}/{arm.thinking}"
        row["unclosed"] = f"{arm.unclosed}/{arm.thinking}"
    row["escapes"] = f"{arm.escape_rate:.1%}"
    row["seq-rep-4"] = f"{arm.seq_rep_4:.2f}"
    row["tokens"] = f"{arm.mean_tokens:.0f}"
    return row


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
    drawing = draw_arms({model: results}, tuple(MEASURES))
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
    """Return one run for each arm, all of the same prompt and seed: a program, if there is one.

    The first that is right with "no penalty" and not with "llama.cpp order, 1.1", or else the
    first.
    """
    arms: dict[str, dict[str, list[Run]]] = {}
    for run in runs:
        arm, kind = run.request.label.rsplit(" | ", 1)
        arms.setdefault(kind, {}).setdefault(arm, []).append(run)
    some = arms.get("code") or next(iter(arms.values()))
    pairs = zip(some["no penalty"], some["llama.cpp order, 1.1"], strict=True)
    telling = (
        place
        for place, (plain, mild) in enumerate(pairs)
        if measure(plain).right and not measure(mild).right
    )
    place = next(telling, 0)
    return [arm_runs[place] for arm_runs in some.values()]


def show_sample(run: Run, engine: Engine) -> Shown:
    """Return a run's text, its escapes and the token that broke its program marked."""
    arm, kind = run.request.label.rsplit(" | ", 1)
    step = find_break(run, list(decode_steps(run, engine))) if kind == "code" else None
    verdict = check_run(run).reason if kind == "code" else ""
    title = f"{arm} ({verdict or ('right' if measure(run).right else 'not right')})"
    return show_run(run, engine, breaking=step, title=title)
