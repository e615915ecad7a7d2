"""The report of the experiment, from runs that are made up."""

from __future__ import annotations

import re
from pathlib import Path

from qwqlab.experiments import Grid, Part, count_arms, list_arms, plan_requests
from qwqlab.plots import make_table, pick_samples, show_sample, write_report
from qwqlab.sampling import Engine, Request, Run

GOOD = (
    "```python\ndef add(a, b):\n    return a + b\n\n\ndef is_even(n):\n    return n % 2 == 0\n```"
)
BAD = "```python\n<script>alert(1)</script>\n```"


def make_run(engine: Engine, request: Request, text: str) -> Run:
    tokens = tuple(engine.model.tokenize(text))
    return Run(request, 1, tokens, text, "end", (0,) * len(tokens), (5,), 0.1)


def test_the_report_shows_every_arm_and_runs_nothing_of_a_models(
    engine: Engine, tmp_path: Path
) -> None:
    requests = plan_requests(Grid(Part(2, 1, 40), Part(1, 1, 12)))
    second = {r.prompt for r in requests if r.label.endswith("code")} - {requests[0].prompt}
    # Of the two prompts for code only the second tells: no penalty solves it, and a mild one fails.
    good = [r.prompt not in second or r.label == "no penalty | code" for r in requests]
    runs = [
        make_run(engine, request, GOOD if well else BAD)
        for request, well in zip(requests, good, strict=True)
    ]
    results = count_arms(runs)
    picked = pick_samples(runs)
    samples = [show_sample(run, engine) for run in picked]
    page = write_report(
        tmp_path / "a" / "report.html", results, samples, "<i>ask", "<b>model", "build"
    )
    text = page.read_text(encoding="utf-8")
    assert [run.request.label for run in picked] == [f"{arm} | code" for arm in list_arms()]
    assert {run.request.prompt for run in picked} == second
    assert len({run.request.seed for run in picked}) == 1
    assert len(make_table(results)) == len(list_arms())
    assert "&lt;b&gt;model" in text and "&lt;i&gt;ask" in text
    markup = re.sub(r"(?s)<script.*?</script>", "", text)
    assert not re.search(r'(src|href)="(https?:)?//', markup)
    for run, sample in zip(picked, samples, strict=True):
        assert sample.html in text and "<script" not in sample.html
        # A valid program has no breaking token, a broken one has one.
        assert sample.html.count("font-weight:bold") == (run.text == BAD)
