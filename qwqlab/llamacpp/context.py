"""A context of llama.cpp: the KV cache of many sequences, and the decoding of batches in it."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ContextError
from .ggml import Matrix, number_of
from .loading import ROPE_SCALING, Loading
from .model import C, Handle, Model, hold_interrupts, last_error, log


class Context(Handle):
    """A KV cache of n_seq sequences, n_ctx tokens each, and the decoding of batches in it.

    Each sequence has a stream of its own: split caches decode faster than one shared cache, and
    keep what a sequence computes apart from its neighbours.
    """

    def __init__(self, model: Model, loading: Loading, n_seq: int, n_ctx: int) -> None:
        self.model, self.n_seq, self.n_ctx = model, n_seq, n_ctx
        # Handed to every graph node: strlen says "go on" while the string is empty. A Python
        # callback would take the interpreter's lock a thousand times a step.
        self._abort = ctypes.create_string_buffer(2)
        strlen = ctypes.cast(ctypes.CDLL(None).strlen, C.ggml_abort_callback)
        params = _context_params(loading, n_seq, n_ctx)
        params.abort_callback = strlen
        params.abort_callback_data = ctypes.cast(self._abort, ctypes.c_void_p)
        log.clear()
        with hold_interrupts():
            self._pointer = C.llama_init_from_model(model.handle, params)
        if not self._pointer:
            raise ContextError(
                f"llama.cpp makes no context of {n_seq} x {n_ctx} tokens: {last_error()}; ask for "
                "less or load the model otherwise"
            )
        self._set_adapters()
        self._n_batch: int = C.llama_n_batch(self.handle)
        self._batch = C.llama_batch_init(max(self._n_batch, n_seq), 0, 1)

    def _set_adapters(self) -> None:
        if not (adapters := self.model.adapters):
            return
        pointers = (C.llama_adapter_lora_p_ctypes * len(adapters))(*adapters)
        scales = (ctypes.c_float * len(adapters))(*[1.0] * len(adapters))
        if C.llama_set_adapters_lora(self.handle, pointers, len(adapters), scales):
            raise ContextError(f"llama.cpp could not set the adapters: {last_error()}")

    def close(self) -> None:
        """Free the cache."""
        if self._pointer:
            C.llama_free(self._pointer)
            C.llama_batch_free(self._batch)
            self._pointer = None

    def abort(self) -> None:
        """Stop a decode that runs in another thread, at its next graph node."""
        self._abort[0] = b"x"

    def resume(self) -> None:
        """Forget an `abort` that no decode has met."""
        self._abort[0] = b"\0"

    def prefill(self, tokens: Sequence[int], seq: int) -> Matrix:
        """Decode a prompt into an empty sequence; the last token's logits, shape (1, n_vocab).

        The prompt goes in as llama-completion sends it, n_batch tokens at a time, so that the
        arithmetic is the same.
        """
        logits: Matrix | None = None
        for start in range(0, len(tokens), self._n_batch):
            part = tokens[start : start + self._n_batch]
            positions = range(start, start + len(part))
            logits = self._decode(part, positions, [seq] * len(part), n_outputs=1)
        assert logits is not None
        return logits

    def step(self, tokens: Sequence[int], positions: Sequence[int]) -> Matrix:
        """Decode one token for each of the first len(tokens) sequences.

        Gives a view of their logits, shape (len(tokens), n_vocab), valid until the next decode.
        """
        return self._decode(tokens, positions, range(len(tokens)), n_outputs=len(tokens))

    def copy(self, source: int, target: int) -> None:
        """Make a sequence's cache a copy of another's."""
        memory = C.llama_get_memory(self.handle)
        C.llama_memory_seq_rm(memory, target, -1, -1)
        C.llama_memory_seq_cp(memory, source, target, -1, -1)

    def cut(self, seq: int, n_keep: int) -> None:
        """Forget what a sequence holds after its first n_keep tokens."""
        C.llama_memory_seq_rm(C.llama_get_memory(self.handle), seq, n_keep, -1)

    def _decode(
        self, tokens: Sequence[int], positions: Sequence[int], seqs: Sequence[int], n_outputs: int
    ) -> Matrix:
        """Decode tokens, each in its sequence; return the logits of the last n_outputs of them."""
        batch = self._batch
        batch.n_tokens = len(tokens)
        for i, (token, position, seq) in enumerate(zip(tokens, positions, seqs, strict=True)):
            batch.token[i], batch.pos[i] = token, position
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, seq
            batch.logits[i] = i >= len(tokens) - n_outputs
        status = C.llama_decode(self.handle, batch)
        if status == 2:
            self._abort[0] = b"\0"
            raise Aborted
        if status != 0:
            raise ContextError(f"llama.cpp could not decode ({status}): {last_error()}")
        rows = C.llama_get_logits(self.handle)
        if not rows:
            raise ContextError("this model gives no logits; take one that generates text")
        return np.ctypeslib.as_array(rows, shape=(n_outputs, self.model.n_vocab))


class Aborted(Exception):
    """A decode was stopped by `Context.abort`."""


def _context_params(loading: Loading, n_seq: int, n_ctx: int) -> Any:
    params = C.llama_context_default_params()
    params.n_ctx, params.n_seq_max = n_ctx * n_seq, n_seq
    params.n_batch, params.n_ubatch = loading.n_batch, loading.n_ubatch
    params.n_threads = loading.threads()
    params.n_threads_batch = loading.n_threads_batch or loading.threads()
    params.flash_attn_type = {"auto": -1, "off": 0, "on": 1}[loading.flash_attn]
    params.type_k = number_of(loading.cache_type_k)
    params.type_v = number_of(loading.cache_type_v)
    params.rope_scaling_type = ROPE_SCALING.index(loading.rope_scaling) - 1
    params.rope_freq_base = loading.rope_freq_base
    scale = loading.rope_scale
    params.rope_freq_scale = 1 / scale if scale else loading.rope_freq_scale
    params.yarn_orig_ctx = loading.yarn_orig_ctx
    params.yarn_ext_factor = loading.yarn_ext_factor
    params.yarn_attn_factor = loading.yarn_attn_factor
    params.yarn_beta_fast = loading.yarn_beta_fast
    params.yarn_beta_slow = loading.yarn_beta_slow
    # llama-completion's own choices where the library's defaults differ.
    params.swa_full, params.kv_unified = False, False
    return params
