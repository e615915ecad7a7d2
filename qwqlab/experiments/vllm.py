"""vLLM as a server: its command, a request in its terms, and a note for all that gets lost.

It serves bitsandbytes' 4-bit models on a GPU; since 0.28.0 it needs a plugin for them. All
of this is from the sources of vLLM 0.33.0 and vllm-bnb-plugin 0.0.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from ..errors import ClusterError, first_lines
from ..sampling import SETTINGS, Request, Sampling, find_inert, is_neutral

VLLM_PACKAGES = ("vllm==0.33.0", "vllm-bnb-plugin==0.0.3")
DYNAMIC = "unsloth/QwQ-32B-unsloth-bnb-4bit"
CONTEXT = 2560
"""Tokens of context with which DYNAMIC fits a card of 24 GB, as `quant.fit_vllm` counts them."""

UTILIZATION = 0.95
"""The share of the card that vLLM takes; by its own default 0.92."""

BATCH_TOKENS = 512
"""Tokens that vLLM reads at once: fewer leave more room for the context."""

ORDER = ("penalties", "temperature", "min_p", "top_k", "top_p")
"""The stages that vLLM has, in its order, which can't be changed."""

# vLLM's names where they differ. All are sent, neutral ones too: what is not sent is taken from
# the model's generation_config.json.
_NAMES = {"temp": "temperature", "repeat_penalty": "repetition_penalty"}
_SENT = ("temp", "top_k", "top_p", "min_p", "repeat_penalty", "frequency_penalty",
         "presence_penalty")  # fmt: skip
# q, k and v are one module in vLLM, and so are gate and up: an entry for one of them fits nothing.
_FUSED = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")


@dataclass(frozen=True)
class Translation:
    """A request for vLLM, and a sentence for each thing that it does otherwise."""

    body: dict[str, Any]
    notes: tuple[str, ...]


def vllm_command(context: int = CONTEXT, model: str = DYNAMIC) -> str:
    """Return the shell command that serves a model on one GPU, with little beside it.

    context: tokens of a sequence; `quant.fit_vllm` counts how many a card has room for. With
    `--enforce-eager` vLLM is slower and keeps no CUDA graphs. A model in 4 bits can't be split over
    several GPUs (`--tensor-parallel-size`): the plugin refuses.
    """
    return (
        f"vllm serve {model} --max-model-len {context} --gpu-memory-utilization {UTILIZATION} "
        f"--max-num-seqs 4 --max-num-batched-tokens {BATCH_TOKENS} --enforce-eager "
        "--port 8000 --host 127.0.0.1"
    )


def translate_for_vllm(request: Request, context: int = CONTEXT) -> Translation:
    """Return the body of a POST to /v1/completions, with notes on what vLLM does otherwise.

    context: that of the server, sent where there is no limit (n_predict=-1). A setting that has no
    effect in llama.cpp is sent as neutral; one that vLLM doesn't have is noted.
    """
    sampling, inert = request.sampling, find_inert(request.sampling)
    acts = {
        setting.name: setting.stage
        for setting in SETTINGS
        if setting.neutral is not None
        and not is_neutral(sampling, setting)
        and setting.name not in inert
    }
    body: dict[str, Any] = {"model": DYNAMIC, "prompt": request.prompt, "seed": request.seed}
    body["max_tokens"] = request.n_predict if request.n_predict >= 0 else context
    for name in _SENT:
        body[_NAMES.get(name, name)] = getattr(sampling if name in acts else _NEUTRAL, name)
    return Translation(body, tuple(_explain(sampling, acts, body)))


def _explain(sampling: Sampling, acts: dict[str, str], body: dict[str, Any]) -> list[str]:
    notes = [
        f"{name}={getattr(sampling, name):g} is left out: vLLM has nothing like it"
        for name in acts
        if name not in _SENT
    ]
    if sampling.logit_bias or sampling.ignore_eos:
        notes.append("biases of tokens are left out: vLLM's logit_bias and ignore_eos are others")
    acting = {stage for name, stage in acts.items() if name in _SENT}
    own = [stage for stage in sampling.chain() if stage in acting]
    theirs = [stage for stage in ORDER if stage in own]
    if own != theirs:
        notes.append(f"the order is vLLM's, {', '.join(theirs)}; here it is {', '.join(own)}")
    if "penalties" in acting:
        notes.append(
            f"penalties see the whole text, not the last {sampling.repeat_last_n} tokens; presence "
            "and frequency see the answer alone"
        )
    if body["temperature"] > 0 and body["top_k"] != 1:
        notes.append("the same seed draws other numbers")
    return notes


def complete_on_vllm(url: str, body: dict[str, Any], timeout: float = 600.0) -> str:
    """Return the text that a server at `url` ("http://127.0.0.1:8000") gives for a body.

    Raise ClusterError if none answers, with the server's own words if it refuses.
    """
    try:
        answer = httpx.post(f"{url.rstrip('/')}/v1/completions", json=body, timeout=timeout)
        if answer.status_code != 200:
            raise ClusterError(f"{url} refused the request: {answer.text[:300]}")
        text = answer.json()["choices"][0]["text"]
    except httpx.TimeoutException as error:
        raise ClusterError(f"{url} took longer than {timeout:.0f} s; allow more time") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ClusterError(
            f"no server answers at {url} ({first_lines(error)}); start one with `{vllm_command()}`"
        ) from error
    except (ValueError, LookupError, TypeError) as error:
        raise ClusterError(f"{url} is no server of completions: {first_lines(error)}") from error
    return str(text)


def find_unseen_by_vllm(skip: Sequence[str]) -> list[str]:
    """Return the entries of a skip list that vLLM overlooks: it takes their 16 bits for 4.

    >>> find_unseen_by_vllm(["lm_head", "model.layers.3.mlp", "model.layers.5.self_attn.q_proj"])
    ['model.layers.5.self_attn.q_proj']
    """
    return [entry for entry in skip if entry.rsplit(".", 1)[-1] in _FUSED]


_NEUTRAL = Sampling(temp=1.0, top_k=0, top_p=1.0, min_p=0.0)
