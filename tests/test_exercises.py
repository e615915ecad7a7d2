"""The folded solutions pass the checks under the notebooks' exercises, and wrong answers do not.

An exercise is three cells: one tagged `exercise` that the reader fills in, one tagged
`exercise-check`, and Markdown that holds the solution as a Python block. Cells tagged `needed` run
before it. A notebook without such cells has nothing to test here.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from qwqlab.paths import CHECKOUT

# What a reader might answer instead: the notebook, the exercise's place in it, the answer, and what
# the check says.
WRONG = [
    ("00_start_here", 0, 'answer = {"article", "official"}', "look again at official"),
    ("00_start_here", 0, "answer = set()", "look again at article"),
    ("01_build_llama_cpp", 0, 'line = "llama-completion --temp 0.6"', "the seven others"),
    ("01_build_llama_cpp", 1, 'letters = "ekpmtdyx"', "these letters say"),
    ("02_models_and_quants", 0, "tokens = 10**9 // 131_072", "would be 131,"),
    ("02_models_and_quants", 1, "dominated = set()", "look at "),
    ("03_sampler_lab", 0, "mine = article", "repeat_penalty=1.1 has no effect"),
    ("03_sampler_lab", 0, "mine = article.with_(repeat_penalty=1, dry_multiplier=0)", "nothing in"),
    ("03_sampler_lab", 1, "penalty = 1.01", "the token is still"),
    ("03_sampler_lab", 1, "penalty = 1.21", "a smaller penalty does it too"),
    ("03_sampler_lab", 1, "penalty = 1.5", "a smaller penalty does it too"),
    ("03_sampler_lab", 1, "penalty = 0", "between 1 and 2"),
    ("04_flappy_bird", 0, "mine = source", "the requirements that it misses: []"),
    ("04_flappy_bird", 0, "mine = source + '('", "it fails earlier: the stage parse fails"),
    ("04_flappy_bird", 1, "penalty = 1.5", "1.5 is not what llama.cpp takes"),
    ("04_flappy_bird", 1, "penalty = 1.3", "the last flag counts"),
    ("05_think_token", 0, 'quiet = template("with-think")', "<think>\\n'"),
    ("05_think_token", 0, 'quiet = template("without-think")', "assistant\\n'"),
    (
        "05_think_token",
        0,
        r"quiet = template('without-think') + '{{ \"<think>\n\n</think>\n\n\" }}'",
        "must stay as it was",
    ),
    ("05_think_token", 1, 'was_forced = lambda text: "</think>" in text', "look at '<think>"),
    ("05_think_token", 1, 'was_forced = lambda text: text[0] != "<"', r"look at '\n<think>"),
    ("06_ruling_out_suspects", 0, 'differs = {"b"}', "look at what NFC changes"),
    ("06_ruling_out_suspects", 0, 'differs = {"a", "b"}', "look at what NFC changes"),
    ("06_ruling_out_suspects", 1, "fewest = 10", "9 would do"),
    ("06_ruling_out_suspects", 1, "fewest = 5", "5 runs leave it undecided"),
    ("07_dynamic_4bit", 0, "bits = 4.127", "8 for each block of 128"),
    ("07_dynamic_4bit", 0, "bits = 4 + 8 / 128", "scales of their own"),
    ("07_dynamic_4bit", 1, 'mine = ["layers.0.mlp", "lm_head"]', "a name begins with model"),
    ("07_dynamic_4bit", 1, 'mine = ["model.layers.0.mlp"]', "quantises the head"),
    ("07_dynamic_4bit", 1, 'mine = ["model.layers.0", "lm_head"]', "self_attn.k_proj too"),
    ("07_dynamic_4bit", 1, 'mine = ["model.layers.0.mlp.up_proj", "lm_head"]', "three linear"),
    (
        "07_dynamic_4bit",
        2,
        "harm_of_mine = {m.name: m.kurtosis for m in errors.quantised}",
        "is it the outputs that decide?",
    ),
    ("08_qlora", 0, "n_learnt = 12", "the end of the turn"),
    ("08_qlora", 0, "n_learnt = 83", "a prompt is read"),
    ("08_qlora", 0, "n_learnt = 18", "padding is found by its place"),
    ("08_qlora", 1, 'mine = "<|im_end|>"', "it ends every answer"),
    ("08_qlora", 1, 'mine = "2"', "labels are lost: answers hold that token"),
    ("08_qlora", 2, "count_numbers = lambda rank: 355_008 * rank", "the head, lm_head"),
    ("08_qlora", 2, "count_numbers = lambda rank: 149_760 * rank", "two matrices, A and B"),
    ("08_qlora", 2, "count_numbers = lambda rank: rank", "it gives 32 for rank 32"),
    ("09_beyond_one_machine", 0, "n_pieces = 2", "would wait for the other's last run"),
    ("09_beyond_one_machine", 0, "n_pieces = 90", "39 places of the batch empty"),
    ("09_beyond_one_machine", 0, "n_pieces = 8", "the batch holds 40"),
    ("09_beyond_one_machine", 0, "n_pieces = 4", "a piece has 40 runs"),
    ("09_beyond_one_machine", 1, 'mine = PRESETS["article"]', "vLLM has no DRY"),
    ("09_beyond_one_machine", 1, 'mine = PRESETS["official"]', "draw nothing"),
    (
        "09_beyond_one_machine",
        1,
        'mine = PRESETS["official"].with_(temp=0.0, repeat_penalty=1.1)',
        "penalties see the whole text",
    ),
    ("09_beyond_one_machine", 2, "merge = lambda first, second: None", "no more than before"),
]

NOTEBOOKS = sorted((CHECKOUT / "notebooks").glob("*.ipynb"))
Cell = dict[str, Any]


def read_cells(name: str) -> list[Cell]:
    text = (CHECKOUT / "notebooks" / name).read_text(encoding="utf-8")
    return list(json.loads(text)["cells"])


def has_tag(cell: Cell, tag: str) -> bool:
    return tag in cell["metadata"].get("tags", [])


def source(cell: Cell) -> str:
    return "".join(cell["source"])


def find_exercises(stem: str = "") -> list[tuple[str, int]]:
    """Notebook and cell of every exercise, or of those of one notebook."""
    return [
        (path.name, place)
        for path in NOTEBOOKS
        if stem in ("", path.stem)
        for place, cell in enumerate(read_cells(path.name))
        if has_tag(cell, "exercise")
    ]


STARTED: dict[str, tuple[int, dict[str, Any]]] = {}
"""For each notebook, up to which cell its needed cells were run, and the names that they bound."""


def run_up_to(name: str, place: int) -> dict[str, Any]:
    """The names that the notebook's needed cells have bound before an exercise."""
    start, names = STARTED.get(name, (0, {}))
    if start > place:
        start, names = 0, {}
    for cell in read_cells(name)[start:place]:
        if has_tag(cell, "needed"):
            exec(source(cell), names)
    STARTED[name] = place, names
    return dict(names)


@pytest.mark.parametrize(("name", "place"), find_exercises())
def test_a_folded_solution_passes_and_wrong_answers_do_not(name, place, monkeypatch, capsys):
    monkeypatch.chdir(CHECKOUT / "notebooks")
    cells = read_cells(name)
    exercise, check, prose = (source(cell) for cell in cells[place : place + 3])
    assert has_tag(cells[place + 1], "exercise-check") and "<details>" in prose
    solution = re.search(r"```python\n(.*?)```", prose, re.DOTALL)
    assert solution, "the solution holds no Python block"
    names = run_up_to(name, place)
    capsys.readouterr()
    exec(exercise, names)
    exec(check, names)
    assert "Not answered yet." in capsys.readouterr().out
    wrong = [w for w in WRONG if find_exercises(w[0])[w[1]] == (name, place)]
    assert wrong, "no wrong answer is tried"
    for *_, answer, hint in wrong:
        exec(answer, names)
        with pytest.raises(AssertionError, match=re.escape(hint)):
            exec(check, names)
    exec(solution[1], names)
    exec(check, names)
    assert capsys.readouterr().out.strip() == "Right."
