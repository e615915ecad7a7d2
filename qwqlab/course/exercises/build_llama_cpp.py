"""The exercises of 01_build_llama_cpp."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...sampling import MARCH_2025, PRESETS, Command, parse_command
from ..exercise import exercise, expect


@exercise(
    "predict",
    solution="penalty = 1.1",
    after="llama.cpp reads flags from left to right, and a later one overwrites an earlier one.",
    wrong=[
        ("penalty = 1.5", "a later flag overwrites an earlier one"),
        ("penalty = 1.3", "flags are neither averaged nor multiplied"),
        ("penalty = 1.5 * 1.1", "flags are neither averaged nor multiplied"),
    ],
)
def given_twice(penalty: float) -> None:
    """
    Both of the article's lines say `--repeat-penalty 1.5 --repeat-penalty 1.1`. With which repeat
    penalty were they run? Answer before you run the next cell.
    """
    expect(penalty != 1.5, "a later flag overwrites an earlier one")
    expect(penalty == 1.1, f"{penalty} was not given: flags are neither averaged nor multiplied")


@exercise(
    "change",
    solution="""
        line = (
            "llama-completion --temp 0.6 --repeat-penalty 1.1 --dry-multiplier 0.5 --min-p 0.0 "
            "--top-k 40 --top-p 0.95 "
            '--samplers "top_k;top_p;min_p;temperature;penalties;dry;typ_p;xtc"'
        )
    """,
    after="The lab has it as a preset, `article_with_penalties`.",
    wrong=[
        ('line = "llama-completion --temp 0.6"', "the seven others"),
        ("line = texts['with_fix']", "the list has no penalties yet"),
        (
            "line = texts['with_fix'].replace('top_k;top_p', 'penalties;top_k;top_p')",
            "`penalties` stands at place 1",
        ),
        (
            "line = texts['with_fix'].replace(';dry', ';penalties;dry').replace('0.95', '0.9')",
            "top_p",
        ),
    ],
)
def penalty_that_counts(line: str, with_fix: Command) -> None:
    """
    Change the article's fix so that its repeat penalty counts: write a command for
    `parse_command` with the article's numbers, its seven samplers in its order, and `penalties`
    put back directly before `dry`. The model and the prompt do not matter.
    """
    # What a line leaves out is what it was in the article's March.
    mine, fix = parse_command(line, MARCH_2025).sampling, with_fix.sampling
    seven = tuple(name for name in mine.samplers if name != "penalties")
    expect(seven == fix.samplers, "the seven others should stay as they are, in their order")
    expect("penalties" in mine.samplers, "the list has no penalties yet, so the number is useless")
    place = mine.samplers.index("penalties")
    hint = f"`penalties` stands at place {place + 1}: before `top_k` it makes escapes, put it next"
    expect(place + 1 == mine.samplers.index("dry"), f"{hint} to `dry`")
    differing = [k for k, v in mine.to_dict().items() if v != fix.to_dict()[k] and k != "samplers"]
    expect(not differing, f"keep the article's numbers: {', '.join(differing)} is another")


LETTERS = {
    "top_k": "k",
    "top_p": "p",
    "min_p": "m",
    "temperature": "t",
    "dry": "d",
    "typ_p": "y",
    "xtc": "x",
    "penalties": "e",
    "top_n_sigma": "s",
}


@exercise(
    "build",
    solution="""
        def to_letters(samplers):
            letters = {
                "top_k": "k", "top_p": "p", "min_p": "m", "temperature": "t", "dry": "d",
                "typ_p": "y", "xtc": "x", "penalties": "e", "top_n_sigma": "s",
            }
            return "".join(letters[name] for name in samplers)
    """,
    wrong=[
        ("to_letters = lambda samplers: ''.join(n[0] for n in samplers)", "'t' is temperature"),
        ("to_letters = lambda samplers: 'kpmtdyx'", "`penalties` is `e`"),
        ("to_letters = lambda samplers: 'tkpmdyx'", "the order of the letters is the order"),
    ],
)
def short_form(to_letters: Callable[[Sequence[str]], str]) -> None:
    """
    The list for `--samplers` has a short form, `--sampling-seq`, with a letter for each sampler:
    `k` is top_k, `p` top_p, `m` min_p, `t` temperature, `d` dry, `y` typ_p, `x` xtc, `e`
    penalties, `s` top_n_sigma. Build `to_letters(samplers)`, which makes one out of a list of
    names; `parse_command(["--sampling-seq", letters])` reads it back.
    """
    article = PRESETS["article"].samplers
    found = to_letters(article)
    hint = (
        f"{found!r}: 't' is temperature alone, and no other name begins with its own letter twice"
    )
    expect(len(set(found)) == len(article), hint)
    back = parse_command(["--sampling-seq", found]).sampling.samplers
    expect(
        back == article, f"{found!r} means {back}: the order of the letters is the order of the run"
    )
    whole = PRESETS["llama.cpp"].samplers
    found = to_letters(whole)
    hint = f"{found!r} is not llama.cpp's own list: `penalties` is `e`, and it comes first"
    expect(parse_command(["--sampling-seq", found]).sampling.samplers == whole, hint)
