"""The pass over all modules against what it can't do without, and its memory when streamed.

`python benchmarks/quantize.py` prints both as ratios:

- time: the pass against one forward pass of the same text through the same model, and one
  quantise-dequantise of all its weights by bitsandbytes, in turns;
- memory: the pass over a synthetic checkpoint of two of QwQ-32B's layers (2 GB of disk,
  bf16) against what its largest module needs: its weights in 16 bits and in 4, its inputs and its
  outputs, and the outputs of gate_proj, which the model holds meanwhile. Measured in a process of
  its own, less what it held before the pass and after one over a tiny model.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from qwqlab import paths
from qwqlab.quant import Checkpoint, find_codec, import_bitsandbytes, peak_memory
from qwqlab.quant.checkpoint import N_CTX
from qwqlab.quant.module_errors import N_TOKENS, run_through
from qwqlab.quant.weights import FolderWeights

ROUNDS = 5
QWQ: dict[str, Any] = {
    "hidden_size": 5120, "intermediate_size": 27648, "num_attention_heads": 40,
    "num_key_value_heads": 8, "num_hidden_layers": 2, "vocab_size": 1024,
    "tie_word_embeddings": False,
}  # fmt: skip
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 8}


def main() -> None:
    print(f"time: {measure_time():.2f} times a forward pass and a quantise-dequantise")
    ratio, words = measure_memory()
    print(f"memory: {ratio:.2f} times what the largest module needs ({words})")


def measure_time() -> float:
    """The median over rounds of the pass over its two parts."""
    checkpoint = Checkpoint("smollm2-135m")
    model = checkpoint.load()
    weights = FolderWeights(checkpoint)
    text = paths.data_dir() / "texts" / "calibration.txt"
    tokens = checkpoint.read_blocks(text, N_TOKENS)
    codec = find_codec("nf4")
    bnb = import_bitsandbytes()

    def forward() -> None:
        with torch.inference_mode():
            model(tokens, use_cache=False)

    def quantise() -> None:
        for linear in weights.linears:
            bnb.dequantize_4bit(*bnb.quantize_4bit(weights.read(linear), quant_type="nf4"))

    def measure() -> None:
        run_through(FolderWeights(checkpoint), codec, tokens, lambda _error: None)

    ratios = []
    for _ in range(ROUNDS):
        parts = [clock(work) for work in (forward, quantise, measure)]
        ratios.append(parts[2] / (parts[0] + parts[1]))
        print(f"  forward {parts[0]:.2f} s, quantise {parts[1]:.2f} s, pass {parts[2]:.2f} s")
    return statistics.median(ratios)


def clock(work: Callable[[], None]) -> float:
    """Seconds that it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure_memory() -> tuple[float, str]:
    """Peak of a streamed pass over what its largest module needs, and both in words."""
    with tempfile.TemporaryDirectory(dir=paths.build_dir(), prefix="qwq-shapes-") as folder:
        write_checkpoint(Path(folder) / "large", QWQ)
        write_checkpoint(Path(folder) / "tiny", {**QWQ, **TINY})
        context = multiprocessing.get_context("spawn")
        with context.Pool(1) as pool:
            before, peak = pool.apply(stream_measured, (Path(folder),))
    largest = QWQ["hidden_size"] * QWQ["intermediate_size"]
    rows = N_TOKENS * (QWQ["hidden_size"] + 2 * QWQ["intermediate_size"])
    need = largest * 2 + largest // 2 + largest // 64 * 4 + rows * 4
    return (peak - before) / need, f"{(peak - before) / 1e6:.0f} MB over {need / 1e6:.0f} MB"


def write_checkpoint(folder: Path, options: dict[str, Any]) -> None:
    """Two layers of Gaussian weights, bf16."""
    import transformers

    torch.manual_seed(3407)
    config = transformers.Qwen2Config(**options)
    model: Any = transformers.Qwen2ForCausalLM._from_config(config, dtype=torch.bfloat16)
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder, max_shard_size="1GB")


def stream_measured(folder: Path) -> tuple[int, int]:
    """Memory before the pass and at its highest, in bytes."""
    run(folder / "tiny")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = peak_memory()
    run(folder / "large")
    return before, peak_memory()


def run(folder: Path) -> None:
    """A pass."""
    weights = FolderWeights(Checkpoint(folder))
    found: list[Any] = []
    tokens = torch.arange(N_TOKENS).view(-1, N_CTX) % 1000
    run_through(weights, find_codec("nf4"), tokens, found.append)
    assert len(found) == 15, [error.name for error in found]


if __name__ == "__main__":
    main()
