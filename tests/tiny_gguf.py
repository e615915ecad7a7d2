"""A GGUF of 112 kB that llama.cpp runs: one layer of random weights, a token for each byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from tokenizers.pre_tokenizers import ByteLevel

N_EMBD, N_FF, N_CTX = 32, 64, 512


def make_tiny_gguf(path: Path, **keys: Any) -> Path:
    """Write such a file.

    keys: further keys with their values, a dot written as two underscores. A whole number is kept
    as int32, another one as float32.
    """
    tokens = [*sorted(ByteLevel.alphabet()), "<|endoftext|>"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(N_CTX)
    writer.add_embedding_length(N_EMBD)
    writer.add_feed_forward_length(N_FF)
    writer.add_block_count(1)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(N_EMBD // 2)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL])
    writer.add_token_merges([f"{tokens[0]} {tokens[1]}"])
    writer.add_eos_token_id(256)
    writer.add_add_bos_token(False)
    for name, value in keys.items():
        key = name.replace("__", ".")
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, int):
            writer.add_int32(key, value)
        else:
            writer.add_float32(key, value)
    draw = np.random.default_rng(3407)
    shapes = {
        "token_embd.weight": (len(tokens), N_EMBD),
        "output.weight": (len(tokens), N_EMBD),
        "blk.0.ffn_gate.weight": (N_FF, N_EMBD),
        "blk.0.ffn_up.weight": (N_FF, N_EMBD),
        "blk.0.ffn_down.weight": (N_EMBD, N_FF),
        **{f"blk.0.attn_{part}.weight": (N_EMBD, N_EMBD) for part in ("q", "k", "v", "output")},
    }
    for name, shape in shapes.items():
        writer.add_tensor(name, draw.standard_normal(shape, np.float32) / np.float32(3))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(N_EMBD, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
