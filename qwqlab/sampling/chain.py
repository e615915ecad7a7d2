"""A native sampler chain: llama.cpp's own stages, made from a Sampling, which draw one token.

It is the chain of one sequence as llama-completion builds it (common_sampler_init in llama.cpp's
common/sampling.cpp), one stage after another, so that `probe` can stop between them.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import SettingError
from ..llamacpp import C, Context, Handle, Matrix, Model
from .sampling import Sampling
from .settings import parse_bias

CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
MIN_KEEP = 0  # llama.cpp's default: a stage may leave any number of candidates
MIROSTAT_M = 100


class Candidates:
    """The array that the stages work on, reused from step to step."""

    def __init__(self, n_vocab: int) -> None:
        self._all = np.arange(n_vocab, dtype=np.int32)
        self._buffer: npt.NDArray[Any] = np.zeros(n_vocab, dtype=CANDIDATE)
        self._ids, self._logits = self._buffer["id"], self._buffer["logit"]
        self.native: Any = C.llama_token_data_array()
        self.pointer = ctypes.pointer(self.native)
        self._data = ctypes.cast(self._buffer.ctypes.data, C.llama_token_data_p)

    def fill(self, logits: Matrix) -> None:
        """Put in every token of the vocabulary with its logit, in the order of their ids."""
        self._ids[:], self._logits[:] = self._all, logits
        native = self.native
        native.data, native.size = self._data, len(self._buffer)
        native.selected, native.sorted = -1, False

    def view(self) -> npt.NDArray[Any]:
        """Return a copy of what is left: a record array of id, logit and p."""
        size = self.native.size
        if size == 0:
            return np.zeros(0, dtype=CANDIDATE)
        address = ctypes.addressof(self.native.data.contents)
        raw = (ctypes.c_uint8 * (size * CANDIDATE.itemsize)).from_address(address)
        return np.ctypeslib.as_array(raw).view(CANDIDATE).copy()

    def selected(self) -> int:
        """Return the id of the token that the last stage drew, or -1."""
        native = self.native
        if not 0 <= native.selected < native.size:
            return -1
        return int(native.data[native.selected].id)


class Chain(Handle):
    """The chain of one sequence. names are the stages in order, the one that draws last."""

    def __init__(self, model: Model, sampling: Sampling, seed: int) -> None:
        self._pointer = C.llama_sampler_chain_init(C.llama_sampler_chain_default_params())
        self.names = sampling.chain()
        if model.suppressed_tokens and self.names[0] != "logit_bias":
            self.names = ("logit_bias", *self.names)
        for name in self.names:
            stage = _make_stage(model, sampling, name, seed)
            C.llama_sampler_chain_add(self.handle, stage)

    def close(self) -> None:
        """Free the chain and its stages."""
        if self._pointer:
            C.llama_sampler_free(self._pointer)
            self._pointer = None

    def accept(self, tokens: Iterable[int]) -> None:
        """Tell the stages about tokens that are already in the sequence."""
        for token in tokens:
            C.llama_sampler_accept(self.handle, token)

    def sample(self, context: Context, row: int) -> int:
        """Draw the next token from a row of what the context has just decoded, and accept it.

        This is a single call into llama.cpp, so other Python threads can draw at the same time.
        """
        return int(C.llama_sampler_sample(self.handle, context.handle, row))

    def draw(self, candidates: Candidates, logits: Matrix) -> int:
        """Draw the next token from a row of logits that was kept, and accept it."""
        candidates.fill(logits)
        self.apply(candidates)
        token = candidates.selected()
        C.llama_sampler_accept(self.handle, token)
        return token

    def apply(self, candidates: Candidates) -> None:
        """Apply all stages; the last one draws."""
        C.llama_sampler_apply(self.handle, candidates.pointer)

    def apply_stage(self, index: int, candidates: Candidates) -> None:
        """Apply one stage alone."""
        stage = C.llama_sampler_chain_get(self.handle, index)
        C.llama_sampler_apply(stage, candidates.pointer)

    def skip_draws(self, count: int) -> None:
        """Advance the generator of a `dist` stage by so many tokens: it draws once for each."""
        stage = C.llama_sampler_chain_get(self.handle, len(self.names) - 1)
        single = C.llama_token_data(0, 0.0, 1.0)
        for _ in range(count):
            array = C.llama_token_data_array(ctypes.pointer(single), 1, -1, True)
            C.llama_sampler_apply(stage, ctypes.byref(array))


def _make_stage(model: Model, sampling: Sampling, name: str, seed: int) -> Any:
    """Make the native sampler of one stage."""
    s, vocab, n_vocab = sampling, model.vocab, model.n_vocab
    breakers = [b.encode("utf-8", "surrogateescape") for b in s.dry_sequence_breakers]
    c_breakers = (ctypes.c_char_p * len(breakers))(*breakers)
    makers = {
        "logit_bias": lambda: _make_bias(model, s),
        "penalties": lambda: C.llama_sampler_init_penalties(
            n_vocab, s.repeat_last_n, s.repeat_penalty, s.frequency_penalty, s.presence_penalty
        ),
        "dry": lambda: C.llama_sampler_init_dry(
            vocab, s.dry_multiplier, s.dry_base, s.dry_allowed_length, s.dry_penalty_last_n,
            c_breakers, len(breakers),
        ),
        "top_n_sigma": lambda: C.llama_sampler_init_top_n_sigma(s.top_n_sigma),
        "top_k": lambda: C.llama_sampler_init_top_k(s.top_k),
        "typ_p": lambda: C.llama_sampler_init_typical(s.typ_p, MIN_KEEP),
        "top_p": lambda: C.llama_sampler_init_top_p(s.top_p, MIN_KEEP),
        "min_p": lambda: C.llama_sampler_init_min_p(s.min_p, MIN_KEEP),
        "xtc": lambda: C.llama_sampler_init_xtc(
            s.xtc_probability, s.xtc_threshold, MIN_KEEP, seed
        ),
        "temperature": lambda: (
            C.llama_sampler_init_temp(s.temp)
            if s.mirostat
            else C.llama_sampler_init_temp_ext(s.temp, s.dynatemp_range, s.dynatemp_exp)
        ),
        "infill": lambda: C.llama_sampler_init_infill(vocab),
        "adaptive_p": lambda: C.llama_sampler_init_adaptive_p(
            s.adaptive_target, s.adaptive_decay, seed
        ),
        "dist": lambda: C.llama_sampler_init_dist(seed),
        "mirostat": lambda: C.llama_sampler_init_mirostat(
            n_vocab, seed, s.mirostat_ent, s.mirostat_lr, MIROSTAT_M
        ),
        "mirostat_v2": lambda: C.llama_sampler_init_mirostat_v2(
            seed, s.mirostat_ent, s.mirostat_lr
        ),
    }  # fmt: skip
    return makers[name]()


def _make_bias(model: Model, sampling: Sampling) -> Any:
    biases = [parse_bias(text) for text in sampling.logit_bias]
    banned = model.suppressed_tokens
    if sampling.ignore_eos and C.llama_vocab_eos(model.vocab) >= 0:  # as llama.cpp does
        banned = (*model.end_tokens, *banned)
    biases += [(token, -math.inf) for token in banned]
    ups, downs = ({token for token, bias in biases if bias == s * math.inf} for s in (1, -1))
    if ups & downs:  # their sum is no number, and sorting such logits may end the process
        raise SettingError(f"the biases of token {min(ups & downs)} are inf and -inf; give one")
    array = (C.llama_logit_bias * len(biases))(*(C.llama_logit_bias(*each) for each in biases))
    return C.llama_sampler_init_logit_bias(model.n_vocab, len(biases), array)
