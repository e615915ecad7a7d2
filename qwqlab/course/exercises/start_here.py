"""The exercises of 00_start_here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from ...sampling import PRESETS, Request, Run, Sampling
from ..exercise import exercise, expect

if TYPE_CHECKING:
    from ...sampling import Engine


@exercise(
    "predict",
    solution='answer = {"article"}',
    after="""
        `article_with_penalties` is the same list with `penalties` put back, and there the number
        counts again. `{name for name, preset in PRESETS.items() if preset.inert()}` finds it.
    """,
    wrong=[
        ('answer = {"article", "official"}', "in official every sampler runs"),
        ("answer = set()", "article has a number whose sampler"),
        ('answer = {"article", "article_without_fix"}', "every sampler is in the list"),
        ('answer = "article"', "a set of names"),
    ],
)
def idle_presets(answer: set[str]) -> None:
    """
    The lab has five presets: `official`, `llama.cpp`, `article`, `article_without_fix` and
    `article_with_penalties`. In which of them was a number set that changes nothing, since its
    sampler is not in the list? (A number at the value that does nothing asks for nothing, and does
    not count.) `PRESETS[name].samplers` and `PRESETS[name].repeat_penalty` show what a preset
    holds. Guess from these first, then ask `PRESETS[name].inert()`. Answer with a set of names,
    such as `{"official", "llama.cpp"}`.
    """
    expect(isinstance(answer, set), 'answer with a set of names, such as {"official"}')
    unknown = answer - set(PRESETS)
    expect(not unknown, f"there is no preset {min(map(str, unknown), default='')}")
    for name in ("official", "llama.cpp"):
        hint = f"in {name} every sampler runs, so that whatever number was set is read"
        expect(name not in answer, hint)
    for name in ("article_without_fix", "article_with_penalties"):
        hint = f"{name} does run its repeat penalty: every sampler is in the list that it needs"
        expect(name not in answer, hint)
    expect("article" in answer, "article has a number whose sampler its list leaves out")


@exercise(
    "change",
    solution="""
        order = [name for name in penalised.samplers if name != "penalties"]
        mine = penalised.with_(samplers=(*order, "penalties"))
    """,
    after="""
        Behind `top_k` and `top_p` the penalty can only choose among the tokens that these have
        left. It may still choose badly.
    """,
    wrong=[
        ("mine = penalised.with_(repeat_penalty=1.0)", "keep the penalty of 1.5"),
        ("mine = penalised", "`penalties` still comes before `top_k`"),
        (
            'mine = penalised.with_(samplers=("top_k", "top_p", "temperature"))',
            "that is what the article did",
        ),
        (
            'mine = penalised.with_(samplers=("top_k", "penalties", "top_p", "temperature"))',
            "`penalties` still comes before `top_p`",
        ),
        (
            'mine = penalised.with_(samplers=("penalties", "temperature"))',
            "keep `top_k` and `top_p` in the list",
        ),
    ],
)
def no_escapes(mine: Sampling, penalised: Sampling, prompt: str, engine: Engine) -> None:
    """
    Keep the penalty of 1.5, and make escapes impossible all the same: change the order of
    `penalised.samplers`, a tuple of names. `penalised.with_(samplers=...)` gives a changed copy.
    (The check makes two runs, 2 s.)
    """
    expect(mine.repeat_penalty == 1.5, "keep the penalty of 1.5; it is the order that changes")
    order = mine.samplers
    hint = "without `penalties` the number does nothing: that is what the article did"
    expect("penalties" in order, hint)
    expect({"top_k", "top_p"} <= set(order), "keep `top_k` and `top_p` in the list")
    for name in ("top_k", "top_p"):
        hint = f"`penalties` still comes before `{name}`, which then sees what it has left"
        expect(order.index("penalties") > order.index(name), hint)
    runs = [run for _, run in engine.run([Request(prompt, mine, seed, 120) for seed in (1, 2)])]
    expect(not any(run.escapes for run in runs), "there are still escapes in two runs of it")


@exercise(
    "build",
    solution="""
        def escape_rate(run):
            return len(run.escapes) / len(run.tokens) if run.tokens else 0.0
    """,
    wrong=[
        ("escape_rate = lambda run: len(run.escapes)", "a count grows with the length of a run"),
        ("escape_rate = lambda run: len(run.escapes) / 120", "this one wrote 40 tokens"),
        (
            "escape_rate = lambda run: len(run.escapes) / len(run.tokens)",
            "a run may end before it wrote anything",
        ),
    ],
)
def rate_of_escapes(escape_rate: Callable[[Run], float], broken: Run, healthy: Run) -> None:
    """
    Build a measure: `escape_rate(run)`, the share of a run's tokens that are escapes, from 0 to 1.
    `run.tokens` holds its tokens, `run.escapes` the places of the escapes among them.
    """
    expect(escape_rate(healthy) == 0, "a run with no escapes has a rate of 0")
    hint = "a count grows with the length of a run: divide by how many tokens it wrote"
    expect(0 <= escape_rate(broken) <= 1, hint)
    cut = replace(
        broken, tokens=broken.tokens[:40], escapes=tuple(e for e in broken.escapes if e < 40)
    )
    hint = "this one wrote 40 tokens: divide by what a run wrote, not by what it was allowed"
    expect(abs(escape_rate(cut) - len(cut.escapes) / 40) < 1e-9, hint)
    nothing = replace(broken, tokens=(), escapes=())
    try:
        rate = escape_rate(nothing)
    except ZeroDivisionError:
        rate = -1.0
    expect(rate == 0, "a run may end before it wrote anything, and then there is no escape either")
