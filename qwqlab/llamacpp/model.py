"""llama.cpp's library and its log, and a model with its vocabulary.

Only this module, `context` and `sampling.chain` call the bindings.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from ..errors import ClosedError, ModelFileError
from .devices import list_devices
from .loading import Loading, parse_override
from .tools import point_bindings

point_bindings()
from llama_cpp import llama_cpp as C  # noqa: E402  (must follow the line that chooses the library)

# The last lines that llama.cpp logged, for the reason why a load failed.
log: deque[str] = deque(maxlen=400)


@C.llama_log_callback  # type: ignore[untyped-decorator]  # ctypes
def _keep_log(level: int, text: bytes, _user_data: Any) -> None:
    log.append(text.decode("utf-8", "replace"))


C.llama_log_set(_keep_log, None)
C.llama_backend_init()
list_devices()  # before a model is loaded, a device that stands in for a GPU must be known

_KV_TAGS = {int: 0, float: 1, bool: 2, str: 3}


@contextmanager
def hold_interrupts() -> Iterator[None]:
    """Delay a Ctrl-C until llama.cpp returns: in the callback for its log it would be lost."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield
        return
    held: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _frame: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            signal.raise_signal(signal.SIGINT)


class Closing(ABC):
    """Something that must be closed: by a `with` block, by `close`, or when it is collected."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if not is_finalizing():  # at the end of the process the library may be gone before
            self.close()

    @abstractmethod
    def close(self) -> None:
        """Free what it holds; closing again does nothing."""


class Handle(Closing):
    """An object of llama.cpp's, behind a pointer. After `close`, any use raises ClosedError:
    a pointer to freed memory would end the process."""

    _pointer: Any = None

    @property
    def handle(self) -> Any:
        """llama.cpp's pointer."""
        if not self._pointer:
            raise ClosedError(f"this {type(self).__name__.lower()} is closed; open the engine anew")
        return self._pointer


class Model(Handle):
    """A loaded GGUF: weights and vocabulary. The caller inspects the file first.

    vocab_only: load no weights; any file with a tokenizer will do. mapped: map the file, or else
    read it into memory. Raise ModelFileError with llama.cpp's reason if it refuses the file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        loading: Loading,
        *,
        vocab_only: bool = False,
        mapped: bool = True,
    ) -> None:
        params = C.llama_model_default_params()
        params.vocab_only = vocab_only
        if not mapped:
            params.load_mode = C.LLAMA_LOAD_MODE_NONE
        params.n_gpu_layers = loading.n_gpu_layers
        if loading.device == "none":
            params.devices = ctypes.cast((ctypes.c_void_p * 1)(), ctypes.c_void_p)
        overrides = _overrides(loading)
        if overrides is not None:
            params.kv_overrides = overrides
        log.clear()
        with hold_interrupts():
            self._pointer = C.llama_model_load_from_file(os.fsencode(path), params)
        if not self._pointer:
            raise ModelFileError(f"llama.cpp does not load {path}: {last_error()}")
        self.adapters = [] if vocab_only else [self._load_adapter(file) for file in loading.lora]
        self.n_vocab: int = C.llama_vocab_n_tokens(self.vocab)
        self.n_ctx_train: int = C.llama_model_n_ctx_train(self.handle)
        self._pieces: dict[int, bytes] = {}

    def _load_adapter(self, path: str) -> Any:
        """Return llama.cpp's pointer to an adapter, which is freed with the model."""
        log.clear()
        with hold_interrupts():
            adapter = C.llama_adapter_lora_init(self.handle, os.fsencode(path))
        if not adapter:
            raise ModelFileError(f"llama.cpp does not load the adapter {path}: {last_error()}")
        return adapter

    def close(self) -> None:
        """Free the weights. Contexts and chains of the model must be closed first."""
        if self._pointer:
            C.llama_model_free(self._pointer)
            self._pointer = None

    @property
    def vocab(self) -> Any:
        """llama.cpp's pointer to the vocabulary."""
        return C.llama_model_get_vocab(self.handle)

    def tokenize(self, text: str) -> list[int]:
        """Return the token ids of a text as llama-completion reads a prompt: its special tokens
        parsed, the vocabulary's own beginning token added."""
        return self.tokenize_all([text], add_special=True)[0]

    def tokenize_all(
        self, texts: Iterable[str], *, add_special: bool = False, parse_special: bool = True
    ) -> list[list[int]]:
        """Return the token ids of each text, with llama_tokenize's own two switches."""
        found = []
        for text in texts:
            raw = text.encode("utf-8", "surrogateescape")
            # With room for no token, llama.cpp returns how many there are, as a negative number.
            args = self.vocab, raw, len(raw)
            size = -C.llama_tokenize(*args, None, 0, add_special, parse_special)
            buffer = (C.llama_token * size)()
            C.llama_tokenize(*args, buffer, size, add_special, parse_special)
            found.append(list(buffer))
        return found

    def piece(self, token: int) -> bytes:
        """Return the bytes that a token adds to the text; none for a control token."""
        if token not in self._pieces:
            self._pieces[token] = self._render(token, special=False)
        return self._pieces[token]

    def show(self, token: int) -> str:
        """Return a token as a reader sees it, control tokens included."""
        return self._render(token, special=True).decode("utf-8", "replace")

    @cached_property
    def special_tokens(self) -> dict[int, bool]:
        """The tokens that a tokenizer looks for before anything else, by id.

        True: found only with parse_special, such as <|im_end|>. False: always found, such as QwQ's
        <think>.
        """
        hidden = C.LLAMA_TOKEN_ATTR_CONTROL | C.LLAMA_TOKEN_ATTR_UNKNOWN
        found = {}
        for token in range(self.n_vocab):
            kind = C.llama_vocab_get_attr(self.vocab, token)
            if kind & (hidden | C.LLAMA_TOKEN_ATTR_USER_DEFINED):
                found[token] = bool(kind & hidden)
        return found

    def is_end(self, token: int) -> bool:
        """Return whether a token ends a generation."""
        return bool(C.llama_vocab_is_eog(self.vocab, token))

    @cached_property
    def end_tokens(self) -> tuple[int, ...]:
        """The ids of all tokens that end a generation."""
        return tuple(token for token in range(self.n_vocab) if self.is_end(token))

    @cached_property
    def suppressed_tokens(self) -> tuple[int, ...]:
        """The ids of the tokens that the file forbids a sampler to draw, most often none."""
        count = ctypes.c_int32()
        tokens = C.llama_vocab_get_suppress_tokens(self.vocab, ctypes.byref(count))
        return tuple(tokens[: count.value])

    def _render(self, token: int, *, special: bool) -> bytes:
        buffer = ctypes.create_string_buffer(64)
        n = C.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, special)
        if n < 0:
            buffer = ctypes.create_string_buffer(-n)
            n = C.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, special)
        return buffer.raw[:n]


def last_error() -> str:
    """Return the first line of the kept log that mentions an error or a failure."""
    lines = [line.strip() for line in "".join(log).splitlines() if line.strip()]
    telling = [line for line in lines if any(w in line.lower() for w in ("error", "fail"))]
    return (telling or lines or ["no reason given"])[0][:300]


def _overrides(loading: Loading) -> Any:
    if not loading.override_kv:
        return None
    array = (C.llama_model_kv_override * (len(loading.override_kv) + 1))()
    for slot, text in zip(array, loading.override_kv, strict=False):
        key, value = parse_override(text)
        slot.key, slot.tag = key.encode(), _KV_TAGS[type(value)]
        if isinstance(value, bool):
            slot.value.val_bool = value
        elif isinstance(value, int):
            slot.value.val_i64 = value
        elif isinstance(value, float):
            slot.value.val_f64 = value
        else:
            slot.value.val_str = value.encode()
    return array
