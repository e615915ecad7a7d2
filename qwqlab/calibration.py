"""The text that calibrates: what a chat model reads and writes, in the form in which it does."""

from __future__ import annotations

from .engine import Engine
from .experiment import read_prompts
from .records import Request
from .sampling import preset

N_PREDICT = 200


def generate_text(engine: Engine, n_prompts: int = 8) -> str:
    """Questions of data/prompts, a program and a long text in turn, each with the model's answer.

    Sampled with QwQ-32B's official settings, seed 0, up to 200 tokens. So was the lab's own text,
    data/texts/calibration.txt, made: by the embedded model in Q8_0.
    """
    turns = zip(read_prompts("code")[:n_prompts], read_prompts("long")[:n_prompts], strict=True)
    prompts = [prompt for turn in turns for prompt in turn]
    runs = sorted(
        engine.run([Request(prompt, preset("official"), 0, N_PREDICT) for prompt in prompts]),
        key=lambda pair: pair[0],
    )
    return "".join(f"{run.request.prompt}{run.text.strip()}<|im_end|>\n" for _, run in runs)
