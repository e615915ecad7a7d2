"""The requests of one run of the engine, from the first prompt to the last token.

Each sequence has a slot. A slot whose sequence ends is given to the next request at once, and gaps
are closed, since llama.cpp decodes neighbours only in one go.
"""

from __future__ import annotations

import codecs
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from ..errors import ContextError
from ..llamacpp import Aborted, Context, Matrix
from .chain import Candidates, Chain
from .nucleus import locate
from .run import Request, Run

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

    def take(self, token: int, row: Matrix) -> None:
        """Note a drawn token, and its place in its row of logits."""
        sampling = self.request.sampling
        rank, escape = locate(row, token, sampling.top_k, sampling.top_p)
        if escape:
            self.escapes.append(len(self.tokens))
        if self.logits is not None:
            self.logits.append(row.copy())
        self.tokens.append(token)
        self.ranks.append(rank)


@dataclass
class Batch:
    """The requests of one `Engine.run`, from the first prompt to the last token.

    pool:    the threads that draw.
    prompts: the tokens of each prompt that is in a request.
    n_ctx:   tokens that a sequence may hold.
    """

    pool: ThreadPoolExecutor
    requests: Sequence[Request]
    prompts: dict[str, list[int]]
    width: int
    n_ctx: int
    on_token: OnToken | None
    keep_logits: dict[int, Matrix] | None

    def run(self, context: Context, stop: threading.Event) -> Iterator[tuple[int, Run]]:
        """Yield (index, Run) as the runs finish."""
        self.context, self.model = context, context.model
        self.candidates = Candidates(self.model.n_vocab)
        # Requests with the same prompt are neighbours, so that each prompt is decoded once.
        order = {prompt: i for i, prompt in enumerate(self.prompts)}
        places = range(len(self.requests))
        self.waiting = sorted(places, key=lambda i: order[self.requests[i].prompt])
        self.waiting.reverse()
        self.slots: list[_Slot] = []
        # A batch keeps the shared prompt in a sequence of its own; a single run has just one.
        self.holder = self.width if self.width > 1 else 0
        self.held: tuple[str, Matrix] | None = None
        try:
            while self.waiting or self.slots:
                yield from self._fill()
                if self.slots:
                    rows = context.step(
                        [slot.tokens[-1] for slot in self.slots],
                        [slot.n_prompt + len(slot.tokens) - 1 for slot in self.slots],
                    )
                    self._draw(rows)
                    yield from self._collect()
                if stop.is_set():
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
            try:
                slot = self._start(index, request)
            except Aborted:
                self.waiting.append(index)
                raise
            self.slots.append(slot)
            assert self.held is not None
            if request.n_predict == 0:
                self.slots.pop()
                yield index, self._finish(slot, "length")
                continue
            row = self.held[1][0]
            slot.take(slot.chain.draw(self.candidates, row), row)
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
            if np.isnan(rows).any():
                raise ContextError(
                    "the model's logits are not numbers when it is loaded so; RoPE's or YaRN's "
                    "numbers, or an override, are out of reason"
                )
            self.held = request.prompt, rows.copy()
        if seq == self.holder:
            self.context.cut(seq, len(tokens))
        else:
            self.context.copy(self.holder, seq)
        chain = Chain(self.model, request.sampling, request.seed)
        chain.accept(tokens)
        logits: list[Matrix] | None = [] if self.keep_logits is not None else None
        return _Slot(index, request, chain, len(tokens), started, logits=logits)

    def _draw(self, rows: Matrix) -> None:
        """Draw the next token of each slot from its row of what was decoded, on all threads."""

        def draw_one(place: int) -> None:
            slot = self.slots[place]
            slot.take(slot.chain.sample(self.context, place), rows[place])

        if len(self.slots) == 1:
            draw_one(0)
            return
        try:
            drawn = self.pool.map(draw_one, range(len(self.slots)))
        except RuntimeError:
            raise Aborted from None  # Python is ending, and its pools take no more work
        list(drawn)

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
        """Note a drawn token's text; return the Run, if the token was its last."""
        model = self.model
        token = slot.tokens[-1]
        piece = model.piece(token)
        slot.pieces.append(piece)
        if self.on_token is not None:
            self.on_token(slot.index, token, slot.text.decode(piece))
        if model.is_end(token):
            return self._finish(slot, "end")
        if len(slot.tokens) == slot.request.n_predict:
            return self._finish(slot, "length")
        if slot.n_prompt + len(slot.tokens) >= self.n_ctx:
            return self._finish(slot, "context")
        return None

    def _finish(self, slot: _Slot, stop: str) -> Run:
        slot.chain.close()
        if self.keep_logits is not None and slot.logits is not None:
            n_vocab = self.model.n_vocab
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
