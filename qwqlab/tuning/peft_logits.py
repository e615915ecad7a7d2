"""Compute what peft makes of an adapter: the program that `adapter.compare_with_peft` runs.

It is a process of its own, since unsloth changes transformers and peft for all of the process that
imports it. Its one argument is a folder with job.json: the folders of a model and of an adapter,
and lists of token ids. It writes logits.npy there.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

from ..quant import Checkpoint


def main() -> None:
    """Write float32 logits after each text, with the adapter and without: n_texts x 2 x n_vocab."""
    import peft

    folder = Path(sys.argv[1])
    base, adapter, texts = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    torch.set_float32_matmul_precision("highest")  # no TF32
    model = peft.PeftModel.from_pretrained(Checkpoint(base).load(), adapter).eval()
    found = []
    with torch.inference_mode():
        for tokens in texts:
            ids = torch.tensor([tokens], device=model.device)
            own = model(ids).logits[0, -1]
            with model.disable_adapter():
                found.append(torch.stack([own, model(ids).logits[0, -1]]).cpu().numpy())
    np.save(folder / "logits.npy", np.stack(found))


if __name__ == "__main__":
    main()
