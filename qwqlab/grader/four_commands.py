"""The article's own test: its Flappy Bird prompt, its four commands, and the files they write.

The article runs its command with its list of samplers, without that list, with a repeat penalty
of 1.5, and in BF16. Its commands have two oddities, which are mended here so that its arms differ
in one thing: `--repeat-penalty 1.5 --repeat-penalty 1.1` names the penalty twice, and llama.cpp
takes the last; and min_p is 0.0 with the list and 0.1 without it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import files, paths
from ..errors import FetchError, QwqlabError
from ..experiments import read_prompts
from ..llamacpp import Loading, has_gpu
from ..models import (
    GGUFInfo,
    check_room,
    inspect,
    model_path,
    requantize,
)
from ..sampling import Command, Engine, Run, Sampling, preset

SEED = 3407
LONG, SHORT = 16_000, 1200
"""Tokens of a run: the article's, and those that a small model on a CPU writes in half a minute."""

_PROMPT = 512  # tokens of the prompt, at most
_QWQ = re.compile(r"qwq[-_ ]?32b", re.I)
_WHOLE = ("F32", "F16", "BF16")


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


def list_arms(quant: str, whole: bool = True) -> tuple[FlappyArm, ...]:
    """Return the article's four commands for a model of this quant.

    whole: whether the fourth runs the model's own 16 bits; if not, a copy of this quant in 16 bits,
    which is no more precise than the quant.

    >>> [arm.filename for arm in list_arms("Q4_K_M")][:2]
    ['Q4_K_M_yes_samplers.txt', 'Q4_K_M_no_samplers.txt']
    >>> list_arms("Q4_K_M", whole=False)[3].name
    '16-bit copy of Q4_K_M weights'
    """
    with_fix = preset("article")
    without = preset("article_without_fix").with_(min_p=with_fix.min_p)
    strong = without.with_(repeat_penalty=1.5)
    name = "full precision" if whole else f"16-bit copy of {quant} weights"
    stem = "BF16" if whole else f"BF16_of_{quant}"
    return (
        FlappyArm("with the fix", quant, with_fix, f"{quant}_yes_samplers.txt"),
        FlappyArm("without the fix", quant, without, f"{quant}_no_samplers.txt"),
        FlappyArm("repeat penalty 1.5", quant, strong, f"{quant}_no_samplers_1.5.txt"),
        FlappyArm(name, "BF16", without, f"{stem}_no_samplers.txt"),
    )


def choose_length(model: Path, long_on_cpu: bool = False) -> int:
    """Return how many tokens a run may have: LONG for QwQ-32B on a GPU, else SHORT.

    long_on_cpu: give QwQ-32B LONG on a CPU too, where that takes hours.
    """
    return LONG if _is_qwq(inspect(model)) and (long_on_cpu or has_gpu()) else SHORT


def run_arms(model: Path, n_predict: int, loading: Loading | None = None) -> list[Transcript]:
    """Run the four commands on this model, the fourth in 16 bits, one sequence at a time.

    The fourth runs QwQ-32B:BF16 if the model is QwQ-32B and that is here, and else a copy of the
    model. Arms for which memory or disk has no room, or which fail, are left out with a sentence,
    and the others go on. Each text is saved as soon as it is whole, under the article's name for
    it, in build/runs/flappy_bird.
    """
    folder = files.make_folder(paths.runs_dir() / "flappy_bird")
    loading, info = loading or Loading(), inspect(model)
    n_ctx, whole = _PROMPT + n_predict, _find_whole(info)
    transcripts: list[Transcript] = []
    *first, last = list_arms(info.file_type or model.stem, whole is not None)
    for arms, path in (first, model), ([last], whole):
        left = list(arms)
        try:
            with Engine(_prepare(path, info, n_ctx, loading), loading) as engine:
                for arm in arms:
                    print(f"{arm.name}: {n_predict} tokens at most, to {arm.filename} ...")
                    run = engine.generate(read_prompt(), arm.sampling, SEED, n_predict)
                    target = files.write_text(folder / arm.filename, run.text, errors="replace")
                    transcripts.append(Transcript(arm, run, target))
                    left.remove(arm)
        except QwqlabError as error:
            print(f"Left out: {', '.join(arm.name for arm in left)}. {error}")
    return transcripts


def _prepare(path: Path | None, info: GGUFInfo, n_ctx: int, loading: Loading) -> Path:
    """Return the file to run, for None a copy in 16 bits; raise ModelFileError if it can't fit."""
    if path is None:
        check_room(info, n_ctx, loading.device, "BF16")
        return requantize(info.path, "BF16")
    check_room(inspect(path), n_ctx, loading.device)
    return path


def _is_qwq(info: GGUFInfo) -> bool:
    return any(_QWQ.search(name) for name in (info.name, info.path.name))


def _find_whole(info: GGUFInfo) -> Path | None:
    """Return the model's own 16 bits, if they are here."""
    if info.file_type in _WHOLE:
        return info.path
    try:
        return model_path("QwQ-32B:BF16") if _is_qwq(info) else None
    except FetchError:
        return None


def show_differences(first: Sampling, second: Sampling) -> Sequence[tuple[str, object, object]]:
    """Return the settings in which two differ: name, the first's value, the second's."""
    one, two = first.to_dict(), second.to_dict()
    return [(name, one[name], two[name]) for name in one if one[name] != two[name]]
