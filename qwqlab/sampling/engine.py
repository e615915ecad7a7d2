"""Engine: many sequences of one model in one batch, each with a native sampler chain of its own.

A prompt that several requests share is decoded once and its cache copied. A sequence that ends
is replaced at once by the next request. What a run draws depends on nothing but the request where
the arithmetic does not depend on the width of the batch (see `Engine.width_independent`).
"""

from __future__ import annotations

import atexit
import os
import shlex
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from weakref import WeakSet

from .. import preflight
from ..errors import BusyError, ContextError, ModelFileError, SettingError
from ..llamacpp import Closing, Context, Loading, Matrix, Model, bits_of, has_gpu, list_devices
from ..models import (
    SMALL,
    GGUFInfo,
    check_loads,
    estimate_run,
    inspect,
    list_parts,
    model_path,
    place,
)
from .batch import Batch, OnToken
from .run import Request, Run
from .sampling import Sampling, add_own
from .settings import read_own_settings

WIDTH_MAX = 255  # llama.cpp allows 256 sequences; one holds the shared prompt
CELLS = 256  # llama.cpp pads what it reads of a cache to a multiple of this
INTEGER_TYPES = {"Q4_0", "Q4_1", "Q8_0"}
SPLIT_CACHES = {"f32", "f16"}
PLANNED = 8192  # tokens of cache for which there is room on a card beside the layers
PATIENCE = 10.0  # seconds that `close` gives another thread to end its run

_open: WeakSet[Engine] = WeakSet()


@atexit.register
def _close_all() -> None:
    """End every run: one in a daemon thread must not outlive what Python frees at its end."""
    for engine in list(_open):
        with suppress(BusyError):
            engine.close()


class _ModelFiles:
    """The files of a model as an engine loaded them."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._stamps = {file: _stamp(file) for file in files}

    def check(self) -> None:
        """Raise ModelFileError if one of them is no longer what it was."""
        for file, before in self._stamps.items():
            if not file.is_file() or _stamp(file) != before:
                raise ModelFileError(
                    f"{file} was changed, replaced or removed since the engine loaded it; put it "
                    "back, or open the engine anew."
                )


def _stamp(file: Path) -> tuple[int, ...]:
    """Return numbers of which one changes when the file does.

    Not the ctime, which a second name for the file changes too.
    """
    stat = file.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def count_layers(info: GGUFInfo, n_ctx: int, card: int) -> int:
    """Return how many layers of a model fit on cards with `card` bytes free, or -1 for all.

    n_ctx: tokens of cache beside them. A header that does not give the layers plainly means all.
    """
    n_layers = info.metadata.get(f"{info.architecture}.block_count")
    if not isinstance(n_layers, int) or n_layers < 1:
        return -1
    n_there = place(estimate_run(info, n_ctx), n_layers, card).n_gpu_layers
    return n_there if n_there <= n_layers else -1


class Engine(Closing):
    """A loaded GGUF and its runs, one `run` at a time: a second one raises `BusyError`.

    path is a file, or a name that `model_path` knows, such as "smollm2-135m". `stop` and `close`
    may be called from any thread.

    Raise what `model_path` raises, `ModelFileError` for a file that llama.cpp could not load,
    `SettingError` for a LLAMA_ARG_THREADS that is not a number of threads. Files that the lab did
    not fetch itself are tried in a child process first, so that a malformed one can't end this one.
    """

    def __init__(self, path: str | os.PathLike[str], loading: Loading | None = None) -> None:
        self.path = str(model_path(path))
        self.loading = loading or Loading()
        n_threads = self.loading.threads()
        self.info = inspect(self.path)
        check_loads(self.path, self.loading.override_kv, self.loading.lora)
        parts = list_parts(self.info)
        self.files = _ModelFiles([*parts, *map(Path, self.loading.lora)])
        # A small model is read into memory, a larger one mapped: if a program then shortens its
        # file (`cp` over it does), the system ends the process that reads on.
        self._mapped = sum(part.stat().st_size for part in parts) > SMALL
        loaded = replace(self.loading, n_gpu_layers=self._choose_layers())
        self.model = Model(self.path, loaded, mapped=self._mapped)
        self._context: Context | None = None
        self._pool = ThreadPoolExecutor(n_threads)
        self._stop = threading.Event()
        self._claim, self._owner = threading.Lock(), 0
        _open.add(self)

    def __repr__(self) -> str:
        return f"<Engine: {shlex.join(['--model', self.path, *self.loading.flags()])}>"

    def close(self) -> None:
        """End what runs, and free the model and its context. Later uses raise `ClosedError`."""
        if not hasattr(self, "_claim"):
            return
        self.stop()
        # A run that this very thread began is paused between two of its results.
        mine = self._owner == threading.get_ident()
        if not mine and not self._claim.acquire(timeout=PATIENCE):
            raise BusyError("the engine is at work in another thread; end that first")
        try:
            self._pool.shutdown()
            self._drop_context()
            self.model.close()
        finally:
            if not mine:
                self._claim.release()

    def stop(self) -> None:
        """End the runs under way, from any thread; they come out with stop="stopped"."""
        self._stop.set()
        if (context := self._context) is not None:
            context.abort()

    @property
    def sampling(self) -> Sampling:
        """llama.cpp's defaults, but for what the file itself brings (general.sampling.*).

        `generate` takes it if you give no Sampling, as llama-completion does without a flag. A
        Sampling of yours states every value: start from this one for the file's, as in
        `engine.sampling.with_(top_k=20)`.
        """
        return add_own(Sampling(), read_own_settings(self.info.sampling))

    @property
    def n_ctx(self) -> int:
        """Tokens that one sequence can hold: llama.cpp rounds what is asked for up to 256."""
        return _round_up(self.loading.n_ctx or self.model.n_ctx_train)

    @property
    def width_independent(self) -> bool:
        """Whether a run's tokens are the same alone and in a batch of any width.

        True where every matrix is of an integer type and in this one file, the CPU computes, and
        attention sums in one order: without flash attention, or on a quantised cache. On a cache
        of floats llama.cpp splits the sum of a lone sequence among its threads from 512 cells on,
        but no other's. An adapter's matrices are floats.
        """
        matrices = {tensor.type for tensor in self.info.tensors if len(tensor.shape) > 1}
        integer = bool(matrices) and matrices <= INTEGER_TYPES and self.info.n_parts == 1
        cache = {self.loading.cache_type_k, self.loading.cache_type_v}
        unsplit = self.loading.flash_attn == "off" or not cache & SPLIT_CACHES
        return integer and self._on_cpu and unsplit and not self.loading.lora

    @property
    def _on_cpu(self) -> bool:
        return self.loading.device == "none" or not has_gpu()

    def generate(
        self,
        prompt: str,
        sampling: Sampling | None = None,
        seed: int = 3407,
        n_predict: int = 256,
        on_token: OnToken | None = None,
    ) -> Run:
        """Run one sequence: token for token what llama-completion gives."""
        request = Request(prompt, sampling or self.sampling, seed, n_predict)
        ((_, run),) = self.run([request], width=1, on_token=on_token)
        return run

    def run(
        self,
        requests: Sequence[Request],
        width: int = 32,
        on_token: OnToken | None = None,
        keep_logits: dict[int, Matrix] | None = None,
    ) -> Iterator[tuple[int, Run]]:
        """Run requests, at most `width` at once; yield (index, Run) as they finish.

        keep_logits, if given, is filled with each run's logits by its index, float32 of shape
        (tokens, n_vocab): 200 kB a token for a vocabulary of 50,000.

        Raise `ContextError` at once when a prompt does not fit the context, `ModelFileError` when
        a file that is read as it runs has changed, and `BusyError` at the first result that is
        asked for while another run is under way.
        """
        if isinstance(requests, (Request, str)):
            raise SettingError("run takes a list of requests; give [request], or call generate")
        if self._mapped:
            self.files.check()
        if not 1 <= width <= WIDTH_MAX:
            raise SettingError(f"width={width} is out of range; give 1 to {WIDTH_MAX}")
        prompts = {r.prompt: self._tokenize(r.prompt) for r in requests}
        n_ctx = self._plan_context(requests, prompts)
        width = min(width, len(requests)) or 1
        room = min(self.loading.n_batch, self.loading.n_ubatch)
        if _count_sequences(width) > room:
            raise SettingError(
                f"width={width} does not fit: n_batch={self.loading.n_batch} and "
                f"n_ubatch={self.loading.n_ubatch} leave room for {max(1, room - 1)}; raise them "
                "or lower width"
            )
        batch = Batch(self._pool, requests, prompts, width, self.n_ctx, on_token, keep_logits)
        return self._run(batch, n_ctx)

    def _run(self, batch: Batch, n_ctx: int) -> Iterator[tuple[int, Run]]:
        with self._claimed():
            # A stop that came when nothing ran any more must not end this run.
            self._stop.clear()
            context = self._open_context(batch.width, n_ctx)
            context.resume()
            if self._stop.is_set():  # one that came while the context was opened must
                context.abort()
            yield from batch.run(context, self._stop)

    @contextmanager
    def _claimed(self) -> Iterator[None]:
        if not self._claim.acquire(blocking=False):
            raise BusyError("this engine is at work already; wait for it, or press its Stop")
        self._owner = threading.get_ident()
        try:
            yield
        finally:
            self._owner = 0
            self._claim.release()

    def _tokenize(self, prompt: str) -> list[int]:
        tokens = self.model.tokenize(prompt)
        if not tokens:
            raise SettingError("the prompt is empty; give at least one character")
        return tokens

    def _plan_context(self, requests: Sequence[Request], prompts: dict[str, list[int]]) -> int:
        """Count the tokens that each sequence needs: as asked for, or the model's own length."""
        limit = self.n_ctx
        for tokens in prompts.values():
            if len(tokens) > limit - 4:
                raise ContextError(
                    f"the prompt has {len(tokens)} tokens, and a context of {limit} holds "
                    f"{max(0, limit - 4)} of them; shorten it or raise n_ctx"
                )
        if self.loading.n_ctx:
            return limit
        need = max(
            (len(prompts[r.prompt]) + r.n_predict if r.n_predict >= 0 else limit for r in requests),
            default=1,
        )
        return min(_round_up(need + 1), limit)

    def _open_context(self, width: int, n_ctx: int) -> Context:
        n_seq = _count_sequences(width)
        old = self._context
        if old is not None and old.n_seq == n_seq and old.n_ctx >= n_ctx:
            for seq in range(n_seq):
                old.cut(seq, 0)
            return old
        self._drop_context()
        self._check_memory(n_seq, n_ctx)
        self._context = Context(self.model, self.loading, n_seq, n_ctx)
        return self._context

    def _choose_layers(self) -> int:
        """Return how many layers go to the graphics cards: as asked for, or what fits there."""
        asked = self.loading.n_gpu_layers
        if asked != -1 or self._on_cpu:
            return asked
        n_ctx = self.loading.n_ctx or min(self.info.n_ctx_train or PLANNED, PLANNED)
        return count_layers(self.info, n_ctx, sum(device.free for device in list_devices()))

    def _check_memory(self, n_seq: int, n_ctx: int) -> None:
        """Refuse a cache that Linux would promise, only to end the process that then uses it."""
        bits = bits_of(self.loading.cache_type_k) + bits_of(self.loading.cache_type_v)
        cache = n_seq * n_ctx * (self.info.kv_numbers or 0) * bits / 16
        has = preflight.count_memory() - self.info.n_bytes
        if self._on_cpu and cache > has:
            raise ContextError(
                f"a cache of {n_seq} x {n_ctx} tokens takes {cache / 1e9:.0f} GB, and beside the "
                f"model this machine has {max(0, has) / 1e9:.0f}; lower n_ctx or n_predict"
                + (" or width" if n_seq > 1 else "")
            )

    def _drop_context(self) -> None:
        if self._context is not None:
            self._context.close()
            self._context = None


def _count_sequences(width: int) -> int:
    """Count the sequences that a batch needs: one more holds the prompt that several share."""
    return width + 1 if width > 1 else 1


def _round_up(n_tokens: int) -> int:
    return -(-n_tokens // CELLS) * CELLS
