"""The exercises of 07_dynamic_4bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..exercise import exercise, expect

if TYPE_CHECKING:
    from ...quant import Linear, QuantErrors, Selection


@exercise(
    "predict",
    solution="bits = 4 + (8 + 32 / 256) / 128",
    wrong=[
        ("bits = 4.25", "a quantised scale takes 8 bits"),
        ("bits = 4.127", "a block of 64"),
        ("bits = 4 + 8 / 128", "scales of their own"),
        ("bits = 4", "each block has a scale"),
    ],
)
def blocks_of_128(bits: float) -> None:
    """
    A model's linear modules are stored in nf4 with double quantisation, in blocks of 128 instead
    of 64: each block has a scale, the scales are stored in 8 bits, and each 256 of these share a
    32-bit number. How many bits does a weight take? Predict it before you call anything.
    """
    from ...quant import bits_per_weight

    expect(bits != 4, "each block has a scale, which takes room too")
    expect(bits != 4.25, "a quantised scale takes 8 bits, not 32")
    expect(bits != 4 + 8 / 128, "the scales have scales of their own: a float32 for each 256")
    hint = "that is a block of 64; with 128 half as many scales are stored"
    expect(abs(bits - bits_per_weight()) > 1e-3, hint)
    expect(abs(bits - bits_per_weight(block=128)) < 1e-4, "4 bits, and 8 for each block of 128")


@exercise(
    "change",
    solution='mine = ["model.layers.0.mlp", "model.layers.29.mlp", "lm_head"]',
    after="""
        A regular expression makes it one entry: `"model.layers.(0|29).mlp|lm_head"`.
    """,
    wrong=[
        ('mine = ["layers.0.mlp", "lm_head"]', "a name begins with model"),
        ('mine = ["model.layers.0.mlp"]', "quantises the head"),
        ('mine = ["model.layers.0", "lm_head"]', "self_attn.k_proj too"),
        ('mine = ["model.layers.0.mlp.up_proj", "lm_head"]', "three linear"),
    ],
)
def two_mlps(mine: Sequence[str], linears: Sequence[Linear]) -> None:
    """
    Change the skip list `["model.layers.1", "lm_head"]`, which keeps twelve layers, into one that
    keeps the MLPs of layers 0 and 29 and the head in 16 bits, and nothing else.
    """
    from ...quant import resolve_skip_list

    resolved = resolve_skip_list(list(mine), linears)
    dead = resolved.dead[0] if resolved.dead else ""
    expect(not dead, f"{dead!r} fits no module: a name begins with model")
    expect("lm_head" in resolved.kept, "a list without lm_head quantises the head")
    wanted = {m.name for m in linears if m.layer in (0, 29) and ".mlp." in m.name}
    extra = set(resolved.kept) - wanted - {"lm_head"}
    expect(not extra, f"it keeps {min(extra, default='')} too: an entry is where a name *begins*")
    expect(wanted <= set(resolved.kept), "an MLP has three linear modules in each layer")


@exercise(
    "build",
    solution="harm_of_mine = {m.name: m.output_rel_mse**1.1 for m in errors.quantised}",
    after="""
        Ranks alone would not do: what a module costs stands against how much worse it is, not
        against how many are better.
    """,
    wrong=[
        (
            "harm_of_mine = {m.name: m.kurtosis for m in errors.quantised}",
            "is it the outputs that decide?",
        ),
        (
            "harm_of_mine = {m.name: m.output_rel_mse for m in errors.quantised}",
            "the same numbers",
        ),
        ("harm_of_mine = {}", "a number for each of the"),
    ],
)
def another_harm(
    harm_of_mine: Mapping[str, float], errors: QuantErrors, chosen: Selection, budget: float
) -> None:
    """
    Build a choice of your own: a dictionary from a module's name to its harm, for
    `select(errors, budget, "mine", harm_of_mine)`. It should leave nearly as little of the sum of
    output errors as the best choice does, and not be the same numbers.
    """
    from ...quant import select

    names = {m.name for m in errors.quantised}
    hint = f"give a number for each of the {len(names)} modules in `errors.quantised`"
    expect(set(harm_of_mine) == names, hint)
    same = all(harm_of_mine[m.name] == m.output_rel_mse for m in errors.quantised)
    expect(not same, "these are the same numbers as those of the choice above")
    kept = select(errors, budget, "mine", dict(harm_of_mine)).keep
    left = sum(m.output_rel_mse or 0.0 for m in errors.quantised if m.name not in kept)
    ratio = left / chosen.objective
    expect(ratio < 1.02, f"it leaves {ratio:.2f} times as much: is it the outputs that decide?")
