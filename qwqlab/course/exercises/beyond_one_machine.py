"""The exercises of 09_beyond_one_machine."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...sampling import Request, Sampling
from ..exercise import exercise, expect

if TYPE_CHECKING:
    from ...experiments import Source


@exercise(
    "predict",
    solution="n_pieces = 3",
    after="40, 40 and 10: a full batch is worth more than an even share.",
    wrong=[
        ("n_pieces = 2", "would wait for the other's last run"),
        ("n_pieces = 90", "39 places of the batch empty"),
        ("n_pieces = 8", "the batch holds 40"),
        ("n_pieces = 4", "a piece has 40 runs"),
    ],
)
def pieces_of_a_grid(n_pieces: int) -> None:
    """
    A grid of 90 runs goes to two workers, each with room for 40 at once. A worker gets a piece of
    the grid at a time: about four pieces for each worker, but a piece fills a batch where there is
    enough for all. How many pieces are there? Predict it, then look at `experiments.cut_grid`.
    """
    from ...experiments import cut_grid

    expect(n_pieces != 2, "a worker that is done early would wait for the other's last run")
    expect(n_pieces != 90, "a piece of one run would leave 39 places of the batch empty")
    expect(n_pieces != 8, "four pieces a worker would be 12 runs each, and the batch holds 40")
    size = cut_grid(90, 2, 40)
    expect(n_pieces == math.ceil(90 / size), f"a piece has {size} runs: a full batch")


@exercise(
    "change",
    solution='mine = PRESETS["article"].with_(temp=0.0)',
    after="""
        At temperature 0 the likeliest token is all that is left, and top_k, top_p and min_p never
        remove it. DRY stands behind the temperature in the article's list, and has nothing left to
        choose from: without effect, so not missed.
    """,
    wrong=[
        ('mine = PRESETS["article"]', "vLLM has no DRY"),
        ('mine = PRESETS["official"]', "draw nothing"),
        (
            'mine = PRESETS["official"].with_(temp=0.0, repeat_penalty=1.1)',
            "penalties see the whole text",
        ),
    ],
)
def the_same_in_vllm(mine: Sampling) -> None:
    """
    Change the article's setting so that vLLM does what llama.cpp does: no note may be left. At one
    temperature neither order nor seed matter.
    """
    from ...experiments import translate_for_vllm

    notes = translate_for_vllm(Request("Hello", mine)).notes
    expect(not any("dry" in note for note in notes), "vLLM has no DRY: leave it out")
    hint = "the seed decides what is drawn, and vLLM draws otherwise: draw nothing"
    expect(not any("seed" in note for note in notes), hint)
    expect(not any("order" in note for note in notes), "a stage is left whose place matters")
    expect(not notes, f"still otherwise: {notes[0] if notes else ''}")


@exercise(
    "build",
    solution="""
        def merge(first, second):
            with experiments.RunStore(first) as ours, experiments.RunStore(second) as theirs:
                for kept in ours.runs():
                    theirs.add(
                        kept.run, experiment=kept.experiment, model=kept.model,
                        model_sha256=kept.model_sha256, build=kept.build,
                        settings=kept.settings, command=kept.command,
                    )
    """,
    after="""
        `add` passes over a run whose experiment, label and key are there: a key is a hash of all
        that decides the run.
    """,
    wrong=[
        ("merge = lambda first, second: None", "no more than before"),
        (
            """
            def merge(first, second):
                with experiments.RunStore(first) as ours, experiments.RunStore(second) as theirs:
                    for kept in ours.runs():
                        theirs.add(
                            kept.run, experiment="merged", model=kept.model,
                            model_sha256=kept.model_sha256, build=kept.build,
                            settings=kept.settings, command=kept.command,
                        )
            """,
            "instead of 5",
        ),
    ],
)
def merged_stores(
    merge: Callable[[Path, Path], None], source: Source, grid: Sequence[Request]
) -> None:
    """
    Without a network between them, laptops can each run a part and hand in their stores. Build
    `merge`: it takes two paths and adds every run of the first store to the second. A run that is
    there already must not be there twice. `help(experiments.RunStore.add)` says what a store wants
    to know. (The check makes two small stores, 5 s.)
    """
    from ...experiments import RunStore, sweep
    from ...sampling import Engine

    with tempfile.TemporaryDirectory() as folder:
        parts = [Path(folder) / f"{name}.sqlite" for name in ("first", "second")]
        with Engine(source.path, source.loading) as engine:
            for path, part in zip(parts, (grid[:3], grid[2:5]), strict=True):
                with RunStore(path) as own:
                    sweep(engine, part, own, "reproduce")
        merge(*parts)
        with RunStore(parts[1]) as own:
            found = [(kept.experiment, kept.label, kept.key) for kept in own.runs()]
    expect(len(found) > 3, "the second store holds no more than before")
    hint = f"{len(found)} runs instead of 5: a run is the same if experiment, label and key are"
    expect(len(found) == 5, hint)
    expect(len({experiment for experiment, *_ in found}) == 1, "keep each run's experiment")
