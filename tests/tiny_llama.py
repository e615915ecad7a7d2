"""A small model of transformers with QwQ-32B's tokenizer, for tests that need no good model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from qwqlab.models import build_qwq


def make_in_bytes(folder: Path, **changes: Any) -> Path:
    """Write such a folder with a tokenizer of bytes, whose logits and checkpoints cost little."""
    make(folder, **{"vocab_size": 258, **changes})
    vocabulary = {letter: n for n, letter in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = Tokenizer(BPE(vocabulary, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    ).save_pretrained(folder)
    return folder


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
    names = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    for name in names if model.config.vocab_size > 258 else ():
        shutil.copy(build_qwq() / name, folder)
    return folder
