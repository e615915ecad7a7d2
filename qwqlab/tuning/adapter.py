"""A trained adapter back in llama.cpp, as a GGUF or merged; and how well the model does with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import files
from ..errors import ModelFileError, ToolchainError
from ..llamacpp import Loading, Matrix, capture, find_source, module_command, run_tool
from ..models import check_quant, inspect, requantize
from ..quant import Checkpoint
from ..sampling import Engine, Request, Sampling
from ..stats import wilson
from .examples import Example, score

SCRIPT = "convert_lora_to_gguf.py"
WEIGHTS = "adapter_model.safetensors"
N_PREDICT = 64
GREEDY = Sampling(temp=0.0)
# The model's own distribution, nothing cut off it.
PLAIN = Sampling(temp=1.0, top_k=0, top_p=1.0, min_p=0.0)


def export_adapter(
    folder: str | os.PathLike[str], target: str | os.PathLike[str], base: str | Path | Checkpoint
) -> Path:
    """Write an adapter of peft's as a GGUF, float32, with llama.cpp's own script; return its path.

    folder: with adapter_config.json and adapter_model.safetensors; a .bin is a pickle, which could
    run anything, and is refused. base: the model that it was trained on; its configuration alone
    is read. Raise ModelFileError for a folder that holds no adapter of that model, ToolchainError
    if the script is missing.
    """
    folder, target = Path(folder), Path(target)
    for name in ("adapter_config.json", WEIGHTS):
        if not (folder / name).is_file():
            raise ModelFileError(f"{folder} holds no {name}; give a folder that peft wrote.")
    source = find_source()
    if source is None or not (source / SCRIPT).is_file():
        raise ToolchainError(f"llama.cpp's {SCRIPT} is missing: run `make setup`.")
    checkpoint = base if isinstance(base, Checkpoint) else Checkpoint(base)
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    with files.replacing(target) as part:
        command = [sys.executable, SCRIPT, str(folder.resolve()), "--outtype", "f32",
                   "--base", str(checkpoint.folder.resolve()),
                   "--outfile", str(part.absolute())]  # fmt: skip
        done = subprocess.run(
            command, cwd=source, env={**os.environ, **offline}, stdin=subprocess.DEVNULL,
            capture_output=True, check=False,
        )  # fmt: skip
        if done.returncode != 0 or not part.is_file():
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
            reason = lines[-1][:200] if lines else "it said nothing"
            raise ModelFileError(
                f"{folder} is no adapter that {SCRIPT} can turn into a GGUF: {reason}"
            )
    return target


def merge_adapter(
    adapter: str | os.PathLike[str],
    model: str | os.PathLike[str],
    target: str | os.PathLike[str],
    quant: str = "F16",
) -> Path:
    """Add a GGUF adapter to a model's weights, as one file in F16 or a quant; return its path.

    llama-export-lora does it. Raise ToolchainError with the program's own words if it fails.
    """
    target, quant = Path(target), check_quant(quant)
    n_parameters = inspect(Path(model)).n_parameters
    files.check_disk(target.absolute().parent, 3 * n_parameters, target.name,
               "choose a folder on a larger disk")  # fmt: skip
    with files.replacing(target) as part, tempfile.TemporaryDirectory(dir=part.parent) as folder:
        whole = part if quant == "F16" else Path(folder) / "F16.gguf"
        run_tool("llama-export-lora", ["-m", model, "--lora", adapter, "-o", whole])
        if whole != part:
            run_tool("llama-quantize", [whole, part, quant])
    return target


@dataclass(frozen=True)
class Agreement:
    """Logits after a text, the largest difference of any token.

    difference: between llama.cpp with the adapter and peft. effect: between peft with the adapter
    and without it.
    """

    difference: float
    effect: float


def compare_with_peft(
    folder: str | os.PathLike[str], gguf: str | Path, checkpoint: Checkpoint, texts: Sequence[str]
) -> list[Agreement]:
    """Return, for each text, whether an exported adapter does in llama.cpp what it does in peft.

    folder: the adapter as peft wrote it; gguf: the same, exported; checkpoint: a GGUF, of which a
    copy in float32 is made. Weights, cache and products are float32 on both sides, on the CPU, so
    what is left is the order of the sums. Raise ModelFileError, with peft's own words, if it can't
    use the adapter.
    """
    ids = [checkpoint.tokenize(text) for text in texts]
    with tempfile.TemporaryDirectory() as made:
        job = [str(checkpoint.folder.resolve()), str(Path(folder).resolve()), ids]
        (Path(made) / "job.json").write_text(json.dumps(job), encoding="utf-8")
        done = capture(module_command("qwqlab.tuning.peft_logits", made))
        if done.returncode != 0:
            said = done.stderr.strip().splitlines() or ["it said nothing"]
            raise ModelFileError(f"peft can't use {folder}: {said[-1][:200]}")
        logits = np.load(Path(made) / "logits.npy")
    exact = Loading(
        n_ctx=1024, device="none", flash_attn="off", cache_type_k="f32", cache_type_v="f32",
        lora=(str(gguf),),
    )  # fmt: skip
    kept: dict[int, Matrix] = {}
    with Engine(requantize(checkpoint.path, "F32"), exact) as engine:
        requests = [Request(text, GREEDY, 1, 1) for text in texts]
        list(engine.run(requests, keep_logits=kept))
    return [
        Agreement(float(np.abs(ours - kept[place][0]).max()), float(np.abs(ours - bare).max()))
        for place, (ours, bare) in enumerate(logits)
    ]


@dataclass(frozen=True)
class SkillCount:
    """Answers to n prompts, greedy: how many are JSON, and how many the right one."""

    n: int
    json: int
    right: int
    answers: tuple[str, ...]

    @property
    def interval(self) -> tuple[float, float]:
        """Return Wilson's 95 % interval for the share of right answers."""
        return wilson(self.right, self.n)


def measure_skill(engine: Engine, examples: Sequence[Example]) -> SkillCount:
    """Answer each example's prompt, and score it."""
    requests = [Request(example.prompt, GREEDY, 0, N_PREDICT) for example in examples]
    runs = dict(engine.run(requests))
    answers = tuple(runs[place].text for place in range(len(examples)))
    scores = [score(answer, each) for answer, each in zip(answers, examples, strict=True)]
    return SkillCount(
        n=len(examples),
        json=sum(each.is_json for each in scores),
        right=sum(each.is_right for each in scores),
        answers=answers,
    )


@dataclass(frozen=True)
class StopCount:
    """How a model stops.

    p_stop:  the probability of the end token, for each prompt with its right answer behind it.
    stopped: how many of n answers, drawn from the model's own distribution, end by themselves
             within the tokens that they were given.
    """

    p_stop: tuple[float, ...]
    n: int
    stopped: int

    @property
    def mean_p_stop(self) -> float:
        return sum(self.p_stop) / len(self.p_stop)

    @property
    def interval(self) -> tuple[float, float]:
        """Return Wilson's 95 % interval for the share that ends."""
        return wilson(self.stopped, self.n)


def measure_stopping(
    engine: Engine, examples: Sequence[Example], n_seeds: int = 3, n_predict: int = N_PREDICT
) -> StopCount:
    """Measure how sure the model is that a right answer is over, and how often its own end."""
    from scipy.special import softmax

    known: dict[int, Matrix] = {}
    whole = [Request(each.prompt + each.output, GREEDY, 0, 1) for each in examples]
    list(engine.run(whole, keep_logits=known))
    drawn = [
        Request(example.prompt, PLAIN, seed, n_predict)
        for example in examples
        for seed in range(n_seeds)
    ]
    ended = [run.stop == "end" for _, run in engine.run(drawn)]
    ends = list(engine.model.end_tokens)
    return StopCount(
        p_stop=tuple(
            float(softmax(known[place][0].astype(np.float64))[ends].sum())
            for place in range(len(examples))
        ),
        n=len(ended),
        stopped=sum(ended),
    )
