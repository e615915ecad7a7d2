"""The report of the experiment, from a few real runs."""

from __future__ import annotations

import re
from pathlib import Path

from qwqlab.experiments import (
    LOADING,
    Grid,
    check_text,
    count_arms,
    list_arms,
    plan_requests,
    sweep,
)
from qwqlab.models import sweep_copy
from qwqlab.plots import make_table, pick_samples, show_sample, write_report
from qwqlab.sampling import Engine, Request, Run


def test_the_report_shows_every_arm_and_runs_nothing_of_a_models(
    model_path: Path, tmp_path: Path
) -> None:
    with Engine(sweep_copy(model_path), LOADING) as engine:
        runs = sweep(engine, plan_requests(Grid(2, 1, 40, 1, 1, 12)))
        results = count_arms(runs)
        picked = pick_samples(runs)
        samples = [show_sample(run, engine) for run in picked]
    page = write_report(
        tmp_path / "a" / "report.html", results, samples, "<i>ask", "<b>model", "build"
    )
    text = page.read_text(encoding="utf-8")
    assert [run.request.label for run in picked] == [f"{arm} | code" for arm in list_arms()]
    assert len({(run.request.prompt, run.request.seed) for run in picked}) == 1
    assert len(make_table(results)) == len(list_arms())
    assert "&lt;b&gt;model" in text and "&lt;i&gt;ask" in text
    markup = re.sub(r"(?s)<script.*?</script>", "", text)
    assert not re.search(r'(src|href)="(https?:)?//', markup)
    for run, sample in zip(picked, samples, strict=True):
        assert sample.html in text
        # What is valid has no breaking token, and no text has two.
        assert sample.html.count("font-weight:bold") <= (not check_text(run.text).valid)


def test_a_tag_that_a_model_wrote_stays_text(engine: Engine, code_prompt: str) -> None:
    written = "```python\n<script>alert(1)</script>\n```"
    tokens = tuple(engine.model.tokenize(written))
    request = Request(code_prompt, label="an arm | code")
    run = Run(request, 1, tokens, written, "end", (0,) * len(tokens), (5,), 0.0)
    page = show_sample(run, engine).html
    assert "script" in page
    assert "<script" not in page
