"""The exercises of 03_sampler_lab."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ...sampling import Sampling
from ..exercise import exercise, expect

if TYPE_CHECKING:
    from ...sampling import Probe


@exercise(
    "predict",
    solution="n_escapes = 0",
    after="""
        An escape is a token that `top_k` and `top_p` would have thrown out. In this order they
        have had their turn when the penalty gets the candidates, so it has none of those left.
    """,
    wrong=[
        ("n_escapes = 30", "what `top_k` and `top_p` have thrown out"),
        ("n_escapes = 800", "what `top_k` and `top_p` have thrown out"),
        ("n_escapes = -1", "a number of tokens"),
    ],
)
def escapes_after_the_cuts(n_escapes: int) -> None:
    """
    The next cells put `penalties` back into the article's list, directly before `dry`, with a
    penalty of 1.5: `top_k`, `top_p` and `min_p` run before it. How many of the 800 tokens of its
    eight runs will be escapes? Answer with a number before you run on.
    """
    expect(n_escapes >= 0, "answer with a number of tokens")
    hint = "what `top_k` and `top_p` have thrown out before is gone: no penalty can bring it back"
    expect(n_escapes == 0, hint)


@exercise(
    "change",
    solution="mine = article.with_(repeat_penalty=1.0)",
    after="""
        `dry` is in the list, and the article's command sets its multiplier to 0.5. It is what
        discouraged repetition there all the time.
    """,
    wrong=[
        ("mine = article", "repeat_penalty=1.1 has no effect"),
        ("mine = article.with_(repeat_penalty=1, dry_multiplier=0)", "nothing in"),
        (
            'mine = article.with_(samplers=("penalties", *article.samplers))',
            "keep the article's list",
        ),
        (
            "mine = article.with_(presence_penalty=0.5, repeat_penalty=1)",
            "presence_penalty=0.5 has",
        ),
    ],
)
def another_way(mine: Sampling, article: Sampling) -> None:
    """
    The article's list does nothing with `repeat_penalty`. Change `article` so that its list stays
    as it is, repetition is discouraged by something other than `repeat_penalty`, and no setting is
    left without effect.
    """
    expect(mine.samplers == article.samplers, "keep the article's list, in its order")
    expect(mine.dry_multiplier > 0, "nothing in it discourages repetition: which sampler could?")
    idle = mine.inert()
    expect(not idle, idle[0] if idle else "")


@exercise(
    "build",
    solution="""
        def find_smallest(step):
            off = probe.step(step, broken.with_(repeat_penalty=1.0)).token
            for hundredths in range(101, 201):
                penalty = hundredths / 100
                if probe.step(step, broken.with_(repeat_penalty=penalty)).token != off:
                    return penalty
    """,
    after="""
        Or by hand: go to that step in the microscope, set `repeat_penalty` to 1.00, and raise it
        until the token named above the chart changes.
    """,
    wrong=[
        ("find_smallest = lambda step: 1.0", "the token is still the one of 1.00"),
        ("find_smallest = lambda step: 1.5", "a smaller penalty does it too"),
        ("find_smallest = lambda step: 0", "the answer lies between 1 and 2"),
    ],
)
def smallest_penalty(find_smallest: Callable[[int], float], probe: Probe, broken: Sampling) -> None:
    """
    Build `find_smallest(step)`: the smallest repeat penalty, in steps of 0.01 above 1.00, under
    which the same random draw falls on another token than under 1.00. `probe.step(step, setting)`
    shows one step; its `.token` is what was drawn. It is tried on the first two escapes. (3 s)
    """
    for step in probe.run.escapes[:2]:
        found = find_smallest(step)
        expect(1 <= found <= 2, f"{found} at step {step}: the answer lies between 1 and 2")
        tokens = [
            probe.step(step, broken.with_(repeat_penalty=hundredths / 100)).token
            for hundredths in range(100, round(100 * found) + 1)
        ]
        expect(tokens[-1] != tokens[0], f"at step {step} the token is still the one of 1.00")
        hint = f"at step {step} a smaller penalty does it too: the draw is a threshold, find it"
        expect(set(tokens[:-1]) == {tokens[0]}, hint)
