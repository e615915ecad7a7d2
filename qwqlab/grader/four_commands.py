"""The article's own test: its Flappy Bird prompt, its four commands, and the files they write.

The article runs its command with its list of samplers, without that list, with a repeat penalty
of 1.5, and in BF16. Its commands have two oddities, which are mended here so that its arms differ
in one thing: `--repeat-penalty 1.5 --repeat-penalty 1.1` names the penalty twice, and llama.cpp
takes the last; and min_p is 0.0 with the list and 0.1 without it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import files, paths
from ..experiments import read_prompts
from ..llamacpp import Loading
from ..models import inspect, requantize
from ..sampling import Command, Engine, Run, Sampling, preset

SEED = 3407


@dataclass(frozen=True)
class FlappyArm:
    """One of the article's commands: what it tries, on which quant, and where its output goes."""

    name: str
    quant: str
    sampling: Sampling
    filename: str

    def command(self, model: str | Path, n_predict: int) -> Command:
        """Return today's llama-completion command that gives the same text."""
        return Command(
            self.sampling, Loading(), str(model), read_prompt(), seed=SEED, n_predict=n_predict
        )


@dataclass(frozen=True)
class Transcript:
    """What an arm wrote, and the file that holds it."""

    arm: FlappyArm
    run: Run
    path: Path


def read_prompt() -> str:
    """Return the article's prompt, wrapped as its commands wrap it, with the forced `<think>`."""
    return read_prompts("flappy_bird")[0] + "<think>\n"


def list_arms(quant: str) -> tuple[FlappyArm, ...]:
    """Return the article's four commands for a model of this quant.

    >>> [arm.filename for arm in list_arms("Q4_K_M")][:2]
    ['Q4_K_M_yes_samplers.txt', 'Q4_K_M_no_samplers.txt']
    """
    with_fix = preset("article")
    without = preset("article_without_fix").with_(min_p=with_fix.min_p)
    strong = without.with_(repeat_penalty=1.5)
    return (
        FlappyArm("with the fix", quant, with_fix, f"{quant}_yes_samplers.txt"),
        FlappyArm("without the fix", quant, without, f"{quant}_no_samplers.txt"),
        FlappyArm("repeat penalty 1.5", quant, strong, f"{quant}_no_samplers_1.5.txt"),
        FlappyArm("full precision", "BF16", without, "BF16_no_samplers.txt"),
    )


def run_arms(model: Path, n_predict: int) -> list[Transcript]:
    """Run the four commands on this model and on its BF16 copy, one sequence at a time.

    Each text is saved as soon as it is whole, under the article's name for it, in
    build/runs/flappy_bird.
    """
    folder = files.make_folder(paths.runs_dir() / "flappy_bird")
    transcripts: list[Transcript] = []
    arms = list_arms(inspect(model).file_type or model.stem)
    for quant, group in itertools.groupby(arms, lambda arm: arm.quant):
        with Engine(requantize(model, quant) if quant == "BF16" else model) as engine:
            for arm in group:
                print(f"{arm.name}: {n_predict} tokens at most, to {arm.filename} ...")
                run = engine.generate(read_prompt(), arm.sampling, SEED, n_predict)
                path = files.write_text(folder / arm.filename, run.text, errors="replace")
                transcripts.append(Transcript(arm, run, path))
    return transcripts


def show_differences(first: Sampling, second: Sampling) -> Sequence[tuple[str, object, object]]:
    """Return the settings in which two differ: name, the first's value, the second's."""
    one, two = first.to_dict(), second.to_dict()
    return [(name, one[name], two[name]) for name in one if one[name] != two[name]]
