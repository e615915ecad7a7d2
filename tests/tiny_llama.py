"""A small model of transformers with QwQ-32B's tokenizer, for tests that need no good model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
import transformers

from qwqlab.models import build_qwq


def make(folder: Path, shard: str = "5GB", **changes: Any) -> Path:
    """Write a folder that `Checkpoint` reads: two layers of width 64, float32, seed 3407."""
    torch.manual_seed(3407)
    options: dict[str, Any] = {
        "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 152_064,
        "tie_word_embeddings": False, **changes,
    }  # fmt: skip
    model: Any = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**options))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.1)
    model.save_pretrained(folder, max_shard_size=shard)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(build_qwq() / name, folder)
    return folder
