"""What llama.cpp says of its samplers against what the lab knows: each message names the file that
lacks something, so that a new sampler can be followed from one to the next."""

from __future__ import annotations

import re

from qwqlab.llamacpp import run_tool
from qwqlab.sampling import DEFAULT_ORDER, SETTINGS, Engine, Sampling
from qwqlab.sampling.chain import Chain
from qwqlab.sampling.sampling import MOVERS, TRUNCATIONS
from qwqlab.sampling.settings import LETTERS, STAGES
from qwqlab.widgets.controls import MAIN, MORE

# A run's own number, which belongs to no sampler.
NO_SAMPLERS = {"--seed"}
# Stages that neither only drop candidates nor can dethrone the most likely one.
OTHERS = {"temperature", "adaptive_p"}


def read_flags() -> set[str]:
    """The first flag of each number in the part of llama-completion's help that is on sampling."""
    text = run_tool("llama-completion", ["--help"]).stdout
    part = text.split("sampling params -----")[1].split("-----")[0]
    return {flags.split(",")[-1].strip() for flags in re.findall(r"(?m)^(-.*?) N  ", part)}


def test_the_order_and_the_letters_of_llama_cpp_are_known(
    llama_completion_help: dict[str, str],
) -> None:
    order = llama_completion_help["--samplers"].split("default: ")[1].split(")")[0].split(";")
    unknown = set(order) - set(STAGES)
    assert not unknown, f"settings.py lacks {', '.join(unknown)}, which llama.cpp has"
    assert tuple(order) == DEFAULT_ORDER
    letters = llama_completion_help["--sampling-seq"].split("default: ")[1].split(")")[0]
    assert letters == LETTERS[: len(DEFAULT_ORDER)]


def test_every_number_that_llama_cpp_takes_for_its_samplers_is_known() -> None:
    known = {flag for setting in SETTINGS for flag in setting.flags}
    unknown = read_flags() - known - NO_SAMPLERS
    assert not unknown, f"settings.py lacks {', '.join(unknown)}, which llama.cpp takes"
    assert len(known & read_flags()) == len(SETTINGS)


def test_every_stage_can_be_made(engine: Engine) -> None:
    unmade = []
    for stage in STAGES:
        try:
            Chain(engine.model, Sampling(samplers=(stage,)), seed=1).close()
        except KeyError:
            unmade.append(stage)
    assert not unmade, f"chain.py does not make {', '.join(unmade)}"


def test_it_is_said_of_every_stage_whether_it_can_dethrone_the_most_likely_candidate() -> None:
    unsaid = set(STAGES) - {*MOVERS, *TRUNCATIONS} - OTHERS
    assert not unsaid, f"sampling.py has {', '.join(unsaid)} in neither MOVERS nor TRUNCATIONS"
    assert not set(MOVERS) & set(TRUNCATIONS)


def test_every_number_of_a_stage_that_draws_nothing_has_a_slider() -> None:
    shown = {name for name, *_ in (*MAIN, *MORE)}
    hidden = {s.name for s in SETTINGS if s.stage != "adaptive_p"} - shown
    assert not hidden, f"controls.py has no slider for {', '.join(hidden)}"
