"""One layer of Qwen2 with random weights and QwQ-32B's head layout, computed in numpy as well.

An override that changes no answer of a model may be harmless, or may never have been applied. On
this model we can tell: `compute_tiny_logits` computes from the equations what the logits must be
for any RMSNorm epsilon and any YaRN, and llama.cpp has to give the same.

Sources: Qwen2 (arXiv:2407.10671), grouped-query attention (arXiv:2305.13245), YaRN
(arXiv:2309.00071) in the form of ggml's `rope_yarn`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from ..llamacpp import Context, Loading, Model

Array = npt.NDArray[np.float32]
Values = npt.NDArray[np.float64]

N_HEADS, N_KV_HEADS, HEAD_DIM = 40, 8, 128  # QwQ-32B's own
N_EMBD = N_HEADS * HEAD_DIM  # 5,120; llama.cpp takes no other for this architecture
N_FF, N_VOCAB = 256, 256
LAYER = "blk.0."
ROPE_BASE, EPSILON, N_CTX = 1e6, 1e-5, 131_072
SCALE = 1e-3  # of the embeddings: so small that epsilon matters beside their mean square


@dataclass(frozen=True)
class Yarn:
    """YaRN as llama.cpp applies it, at every position: how much longer, than which context."""

    factor: float = 4.0
    original: int = 32_768
    beta_fast: float = 32.0
    beta_slow: float = 1.0


def make_tiny_weights(seed: int = 3407) -> dict[str, Array]:
    """Return the weights by their GGUF names; a matrix has the shape (outputs, inputs)."""
    draw = np.random.default_rng(seed)
    q, kv = N_HEADS * HEAD_DIM, N_KV_HEADS * HEAD_DIM

    def matrix(rows: int, columns: int, scale: float = 1.0) -> Array:
        values = draw.standard_normal((rows, columns), np.float32)
        return values * np.float32(scale / math.sqrt(columns))

    weights = {
        "token_embd.weight": matrix(N_VOCAB, N_EMBD, SCALE * math.sqrt(N_EMBD)),
        "output_norm.weight": np.ones(N_EMBD, np.float32),
        "output.weight": matrix(N_VOCAB, N_EMBD),
    }
    for name, size in {"attn_q": q, "attn_k": kv, "attn_v": kv}.items():
        weights[f"{LAYER}{name}.weight"] = matrix(size, N_EMBD, 3.0)
        weights[f"{LAYER}{name}.bias"] = 0.1 * matrix(1, size)[0] * math.sqrt(size)
    weights[f"{LAYER}attn_output.weight"] = matrix(N_EMBD, q, SCALE)
    weights[f"{LAYER}attn_norm.weight"] = np.ones(N_EMBD, np.float32)
    weights[f"{LAYER}ffn_norm.weight"] = np.ones(N_EMBD, np.float32)
    weights[f"{LAYER}ffn_gate.weight"] = matrix(N_FF, N_EMBD)
    weights[f"{LAYER}ffn_up.weight"] = matrix(N_FF, N_EMBD)
    weights[f"{LAYER}ffn_down.weight"] = matrix(N_EMBD, N_FF, SCALE)
    return weights


def write_tiny_model(path: str | Path, weights: dict[str, Array]) -> Path:
    """Write a GGUF that llama.cpp loads as it loads QwQ-32B (275 MB)."""
    writer = gguf.GGUFWriter(str(path), "qwen2")
    writer.add_context_length(N_CTX)
    writer.add_embedding_length(N_EMBD)
    writer.add_block_count(1)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEADS)
    writer.add_head_count_kv(N_KV_HEADS)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(N_VOCAB)
    writer.add_tokenizer_model("none")
    for name, values in weights.items():
        writer.add_tensor(name, np.ascontiguousarray(values, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Path(path)


def run_tiny_model(path: str | Path, tokens: Sequence[int], loading: Loading) -> Array:
    """Return llama.cpp's logits after the last token, with a cache of 32-bit numbers."""
    loading = replace(loading, flash_attn="off", cache_type_k="f32", cache_type_v="f32")
    width = max(256, len(tokens))
    with Model(path, loading) as model, Context(model, loading, 1, width) as context:
        return np.array(context.prefill(tokens, 0)[0])


def compute_tiny_logits(
    weights: dict[str, Array],
    tokens: Sequence[int],
    epsilon: float = EPSILON,
    yarn: Yarn | None = None,
) -> Array:
    """Return the logits after the last token, of shape (n_vocab,)."""
    x = weights["token_embd.weight"][list(tokens)].astype(np.float64)
    cos, sin = _rotations(len(tokens), yarn)
    w = {n.removeprefix(LAYER): v for n, v in weights.items() if n.startswith(LAYER)}
    h = _normalize(x, epsilon) * w["attn_norm.weight"]
    q, k, v = (_project(h, w, name) for name in ("attn_q", "attn_k", "attn_v"))
    attended = _attend(_rotate(q, cos, sin), _rotate(k, cos, sin), v)
    x = x + attended @ w["attn_output.weight"].T
    h = _normalize(x, epsilon) * w["ffn_norm.weight"]
    gate = h @ w["ffn_gate.weight"].T
    x = x + (gate / (1 + np.exp(-gate)) * (h @ w["ffn_up.weight"].T)) @ w["ffn_down.weight"].T
    last = _normalize(x[-1], epsilon) * weights["output_norm.weight"]
    return np.asarray(last @ weights["output.weight"].T, np.float32)


def _normalize(x: Values, epsilon: float) -> Values:
    """RMSNorm: epsilon keeps the root from 0, and pulls small vectors down."""
    return np.asarray(x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + epsilon))


def _project(h: Values, w: dict[str, Array], name: str) -> Values:
    """Return queries, keys or values, of shape (heads, tokens, head_dim)."""
    y = h @ w[f"{name}.weight"].T + w[f"{name}.bias"]
    return y.reshape(len(h), -1, HEAD_DIM).transpose(1, 0, 2)


def _attend(q: Values, k: Values, v: Values) -> Values:
    """Causal attention; each KV head serves N_HEADS / N_KV_HEADS query heads."""
    k, v = (np.repeat(each, N_HEADS // N_KV_HEADS, axis=0) for each in (k, v))
    scores = q @ k.transpose(0, 2, 1) / math.sqrt(HEAD_DIM)
    scores += np.triu(np.full(scores.shape[1:], -np.inf), 1)
    share = np.exp(scores - scores.max(axis=-1, keepdims=True))
    share /= share.sum(axis=-1, keepdims=True)
    return np.asarray(share @ v).transpose(1, 0, 2).reshape(q.shape[1], -1)


def _rotate(x: Values, cos: Values, sin: Values) -> Values:
    """RoPE in the order of Qwen2: the first half of a head is turned with the second."""
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)


def _rotations(n_tokens: int, yarn: Yarn | None) -> tuple[Values, Values]:
    """Return cosine and sine of each position's angles, of shape (tokens, head_dim / 2)."""
    frequency = ROPE_BASE ** (-np.arange(HEAD_DIM // 2) * 2.0 / HEAD_DIM)
    scale = 1.0
    if yarn is not None:
        fast = max(0, math.floor(_find_pair(yarn, yarn.beta_fast)))
        slow = min(HEAD_DIM - 1, math.ceil(_find_pair(yarn, yarn.beta_slow)))
        ramp = (np.arange(HEAD_DIM // 2) - fast) / max(0.001, slow - fast)
        kept = 1 - np.clip(ramp, 0, 1)  # fast pairs keep their frequency, slow ones are stretched
        frequency = frequency * kept + frequency / yarn.factor * (1 - kept)
        scale = 1 + 0.1 * math.log(yarn.factor)
    angles = np.arange(n_tokens)[:, None] * frequency
    return np.cos(angles) * scale, np.sin(angles) * scale


def _find_pair(yarn: Yarn, turns: float) -> float:
    """Return which pair of a head turns so often within the original context."""
    return HEAD_DIM * math.log(yarn.original / (turns * 2 * math.pi)) / (2 * math.log(ROPE_BASE))
