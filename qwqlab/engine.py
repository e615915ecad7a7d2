"""Engine: many sequences of one model in one batch, each with a native sampler chain of its own.

A prompt that several requests share is decoded once and its cache copied. A sequence that ends
is replaced at once by the next request. What a run draws depends on nothing but the request where
the arithmetic does not depend on the width of the batch (see `Engine.width_independent`).
"""

from __future__ import annotations

import codecs
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from . import gguf_file
from .chain import Candidates, Chain
from .errors import ContextError, SettingError
from .loading import Loading
from .native import Aborted, Context, Handle, Matrix, Model
from .nucleus import locate
from .records import Request, Run
from .sampling import Sampling

WIDTH_MAX = 255  # llama.cpp allows 256 sequences; one holds the shared prompt
CELLS = 256  # llama.cpp pads what it reads of a cache to a multiple of this
INTEGER_TYPES = {"Q4_0", "Q4_1", "Q8_0", "F32"}  # F32: the norms, which are not multiplied

OnToken = Callable[[int, int, str], None]
"""Called with the request's index, the token and the text that it completes."""


@dataclass
class _Slot:
    """One sequence on its way."""

    index: int
    request: Request
    chain: Chain
    n_prompt: int
    started: float
    tokens: list[int] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)
    escapes: list[int] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)
    logits: list[Matrix] | None = None
    text: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace")
    )


class Engine(Handle):
    """A loaded GGUF and its runs. Not for several threads at once, but for `stop`.

    Raises `ModelFileError` for a file that llama.cpp could not load. Files that the lab did not
    fetch itself are tried in a child process first, so that a malformed one can't end this one.
    """

    def __init__(self, path: str | os.PathLike[str], loading: Loading | None = None) -> None:
        self.path = os.fspath(path)
        self.loading = loading or Loading()
        self.info = gguf_file.inspect(path)
        gguf_file.check_loads(path)
        self.model = Model(path, self.loading)
        self._context: Context | None = None
        self._pool = ThreadPoolExecutor(self.loading.threads())
        self._candidates = threading.local()
        self._stop = threading.Event()

    def close(self) -> None:
        """Free the model and its context."""
        if hasattr(self, "_pool"):
            self._pool.shutdown()
        self._drop_context()
        if hasattr(self, "model"):
            self.model.close()

    def stop(self) -> None:
        """End the runs under way, from any thread; they come out with stop="stopped"."""
        self._stop.set()
        if self._context is not None:
            self._context.abort()

    @property
    def n_ctx(self) -> int:
        """Tokens that one sequence can hold: llama.cpp rounds what is asked for up to 256."""
        return _round_up(self.loading.n_ctx or self.model.n_ctx_train)

    @property
    def width_independent(self) -> bool:
        """Whether a run's tokens are the same alone and in a batch of any width.

        True where every matrix is of an integer type, the CPU computes, and flash attention,
        whose sums are split by the shape of the batch, is off.
        """
        integer = set(self.info.bytes_by_type) <= INTEGER_TYPES
        on_cpu = self.loading.n_gpu_layers == 0 or not has_gpu()
        return integer and on_cpu and self.loading.flash_attn == "off"

    def generate(
        self,
        prompt: str,
        sampling: Sampling | None = None,
        seed: int = 3407,
        n_predict: int = 256,
        on_token: OnToken | None = None,
    ) -> Run:
        """One sequence, token for token what llama-completion gives."""
        request = Request(prompt, sampling or Sampling(), seed, n_predict)
        return next(run for _, run in self.run([request], width=1, on_token=on_token))

    def run(
        self,
        requests: Sequence[Request],
        width: int = 32,
        on_token: OnToken | None = None,
        keep_logits: dict[int, Matrix] | None = None,
    ) -> Iterator[tuple[int, Run]]:
        """Run requests, at most `width` at once; yields (index, Run) as they finish.

        keep_logits, if given, is filled with each run's logits by its index, float32 of shape
        (tokens, n_vocab): 200 kB a token for a vocabulary of 50,000.

        Raises `ContextError` before anything runs when a prompt does not fit the context.
        """
        if not 1 <= width <= WIDTH_MAX:
            raise SettingError(f"width={width} is out of range; give 1 to {WIDTH_MAX}")
        prompts = {r.prompt: self._tokenize(r.prompt) for r in requests}
        n_ctx = self._plan_context(requests, prompts)
        width = min(width, len(requests)) or 1
        context = self._open_context(width, n_ctx)
        self._stop.clear()
        return _Batch(self, context, width, requests, prompts, on_token, keep_logits).run()

    def _tokenize(self, prompt: str) -> list[int]:
        tokens = self.model.tokenize(prompt)
        if not tokens:
            raise SettingError("the prompt is empty; give at least one character")
        return tokens

    def _plan_context(self, requests: Sequence[Request], prompts: dict[str, list[int]]) -> int:
        """Tokens that each sequence needs: what was asked for, or the model's own length."""
        limit = self.n_ctx
        for tokens in prompts.values():
            if len(tokens) > limit - 4:
                raise ContextError(
                    f"the prompt has {len(tokens)} tokens, and a context of {limit} holds "
                    f"{limit - 4} of them; shorten it or raise n_ctx"
                )
        if self.loading.n_ctx:
            return limit
        need = max(
            (len(prompts[r.prompt]) + r.n_predict if r.n_predict >= 0 else limit for r in requests),
            default=1,
        )
        return min(_round_up(need + 1), limit)

    def _open_context(self, width: int, n_ctx: int) -> Context:
        n_seq = width + 1 if width > 1 else 1
        old = self._context
        if old is None or old.n_seq != n_seq or old.n_ctx < n_ctx:
            self._drop_context()
            self._context = Context(self.model, self.loading, n_seq, n_ctx)
        else:
            for seq in range(n_seq):
                old.cut(seq, 0)
        assert self._context is not None
        return self._context

    def _drop_context(self) -> None:
        if getattr(self, "_context", None) is not None:
            self._context.close()  # type: ignore[union-attr]
            self._context = None

    def draw(self, slots: Sequence[_Slot], rows: Matrix) -> None:
        """Draw the next token of each slot from its row of logits, on all threads."""
        if len(slots) == 1:
            self._draw_some(slots, rows)
            return
        parts = np.array_split(np.arange(len(slots)), self.loading.threads())
        jobs = [
            self._pool.submit(self._draw_some, slots[p[0] : p[-1] + 1], rows[p[0] : p[-1] + 1])
            for p in parts
            if len(p)
        ]
        for job in jobs:
            job.result()

    def _draw_some(self, slots: Sequence[_Slot], rows: Matrix) -> None:
        if not hasattr(self._candidates, "own"):
            self._candidates.own = Candidates(self.model.n_vocab)
        for slot, row in zip(slots, rows, strict=True):
            token = slot.chain.draw(self._candidates.own, row)
            sampling = slot.request.sampling
            rank, escape = locate(row, token, sampling.top_k, sampling.top_p)
            if escape:
                slot.escapes.append(len(slot.tokens))
            if slot.logits is not None:
                slot.logits.append(row.copy())
            slot.tokens.append(token)
            slot.ranks.append(rank)


def _round_up(n_tokens: int) -> int:
    return -(-n_tokens // CELLS) * CELLS


def has_gpu() -> bool:
    """Whether the loaded llama.cpp can compute on a GPU."""
    from .native import C

    return bool(C.llama_supports_gpu_offload())


class _Batch:
    """The requests of one `Engine.run`, from the first prompt to the last token."""

    def __init__(
        self,
        engine: Engine,
        context: Context,
        width: int,
        requests: Sequence[Request],
        prompts: dict[str, list[int]],
        on_token: OnToken | None,
        keep_logits: dict[int, Matrix] | None,
    ) -> None:
        self.engine, self.context, self.width = engine, context, width
        self.requests, self.prompts = requests, prompts
        self.on_token, self.keep_logits = on_token, keep_logits
        # Requests that share a prompt stand together, so that each prompt is decoded once.
        order = {prompt: i for i, prompt in enumerate(prompts)}
        self.waiting = sorted(range(len(requests)), key=lambda i: order[requests[i].prompt])
        self.waiting.reverse()
        self.slots: list[_Slot] = []
        # A batch keeps the shared prompt in a sequence of its own; a single run has just one.
        self.holder = width if width > 1 else 0
        self.held: tuple[str, Matrix] | None = None

    def run(self) -> Iterator[tuple[int, Run]]:
        try:
            while self.waiting or self.slots:
                yield from self._fill()
                if self.slots:
                    rows = self.context.step(
                        [slot.tokens[-1] for slot in self.slots],
                        [slot.n_prompt + len(slot.tokens) - 1 for slot in self.slots],
                    )
                    self.engine.draw(self.slots, rows)
                    yield from self._collect()
                if self.engine._stop.is_set():
                    raise Aborted
        except Aborted:
            for slot in self.slots:
                yield slot.index, self._finish(slot, "stopped")
            for index in reversed(self.waiting):
                request = self.requests[index]
                n_prompt = len(self.prompts[request.prompt])
                yield index, Run(request, n_prompt, (), "", "stopped", (), (), 0.0)
            self.slots, self.waiting = [], []
        finally:
            for slot in self.slots:
                slot.chain.close()

    def _fill(self) -> Iterator[tuple[int, Run]]:
        """Start waiting requests while there is room; the first token comes from the prompt."""
        while self.waiting and len(self.slots) < self.width:
            index = self.waiting.pop()
            request = self.requests[index]
            slot = self._start(index, request)
            self.slots.append(slot)
            assert self.held is not None
            if request.n_predict == 0:
                self.slots.pop()
                yield index, self._finish(slot, "length")
                continue
            self.engine.draw([slot], self.held[1])
            if run := self._advance(slot):
                self.slots.pop()
                yield slot.index, run

    def _start(self, index: int, request: Request) -> _Slot:
        tokens = self.prompts[request.prompt]
        seq = len(self.slots)
        started = time.perf_counter()
        if self.held is None or self.held[0] != request.prompt:
            self.held = None
            self.context.cut(self.holder, 0)
            rows = self.context.prefill(tokens, self.holder)
            self.held = request.prompt, rows.copy()
        if seq == self.holder:
            self.context.cut(seq, len(tokens))
        else:
            self.context.copy(self.holder, seq)
        chain = Chain(self.engine.model, request.sampling, request.seed)
        chain.accept(tokens)
        logits: list[Matrix] | None = [] if self.keep_logits is not None else None
        return _Slot(index, request, chain, len(tokens), started, logits=logits)

    def _collect(self) -> Iterator[tuple[int, Run]]:
        """Yield what has ended, and close the gaps: llama.cpp batches neighbours only."""
        seq = 0
        while seq < len(self.slots):
            run = self._advance(self.slots[seq])
            if run is None:
                seq += 1
                continue
            index = self.slots[seq].index
            last = self.slots.pop()
            if seq < len(self.slots):
                self.context.copy(len(self.slots), seq)
                self.slots[seq] = last
            yield index, run

    def _advance(self, slot: _Slot) -> Run | None:
        """Take note of a drawn token; the Run, if it was the last."""
        model = self.engine.model
        token = slot.tokens[-1]
        piece = model.piece(token)
        slot.pieces.append(piece)
        if self.on_token is not None:
            self.on_token(slot.index, token, slot.text.decode(piece))
        if model.is_end(token):
            return self._finish(slot, "end")
        if len(slot.tokens) == slot.request.n_predict:
            return self._finish(slot, "length")
        if slot.n_prompt + len(slot.tokens) >= self.engine.n_ctx:
            return self._finish(slot, "context")
        return None

    def _finish(self, slot: _Slot, stop: str) -> Run:
        slot.chain.close()
        if self.keep_logits is not None and slot.logits is not None:
            n_vocab = self.engine.model.n_vocab
            self.keep_logits[slot.index] = np.array(slot.logits, dtype=np.float32).reshape(
                len(slot.tokens), n_vocab
            )
        return Run(
            request=slot.request,
            n_prompt=slot.n_prompt,
            tokens=tuple(slot.tokens),
            text=b"".join(slot.pieces).decode("utf-8", "replace"),
            stop=stop,
            ranks=tuple(slot.ranks),
            escapes=tuple(slot.escapes),
            seconds=time.perf_counter() - slot.started,
        )
