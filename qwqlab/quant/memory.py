"""How large a model is in few bits, and what fine-tuning it takes, from its configuration alone.

GB are 10^9 bytes, GiB 2^30: a card of "24 GB" holds 24 GiB, 25.8 GB.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from .. import paths
from ..errors import ModelFileError, SettingError
from ..experiments import BATCH_TOKENS, UTILIZATION
from ..llamacpp import INT_MAX, check_number
from .checkpoint import (
    Checkpoint,
    Growth,
    Linear,
    build_skeleton,
    find_text,
    list_linears,
    measure_cache,
    read_config,
    read_quantisation,
)
from .skip_list import check_skip_list, resolve_skip_list

GB, GIB = 10**9, 2**30
KNOWN = {"qwq-32b": "QwQ-32B"}
"""Models whose configuration ships with the lab, in data/configs/, by their names in small."""
TOTALS = ("training", "generating")
QUANTS = ("nf4", "fp4", "bf16")
"""What a ledger counts; nf4 and fp4 with double quantisation, as QLoRA and Unsloth load them."""
TRAINERS = ("peft", "unsloth")
"""Who trains: unsloth on a GPU; its CPU backend is peft's."""


@dataclass(frozen=True)
class Shapes:
    """How large a model's parts are.

    linears: every linear module, the head among them. n_parameters counts a tied head once.
    model:   transformers' model without weights.
    tied:    whether the head shares its weights with the embedding.
    skip:    the modules that it tells bitsandbytes to leave in 16 bits; None if it names none.
    double:  whether the scales are quantised as well; True unless the model is quantised otherwise.
    """

    name: str
    linears: tuple[Linear, ...]
    n_parameters: int
    model: Any = field(repr=False, compare=False)
    tied: bool
    skip: tuple[str, ...] | None
    double: bool

    @property
    def quantised(self) -> tuple[Linear, ...]:
        """Return what transformers quantises if told nothing: all linear modules but the head."""
        return tuple(linear for linear in self.linears if not linear.is_head)

    @cached_property
    def cache(self) -> tuple[Growth, ...]:
        """Return how the cache of each layer grows; raise ModelFileError if that is not seen."""
        return measure_cache(self.model, self.name)

    def ask(self, name: str) -> int:
        """Return a number of the language model's configuration, or raise ModelFileError."""
        value = getattr(find_text(self.model.config), name, None)
        if type(value) is not int:
            raise ModelFileError(f"{self.name} gives no whole number as its {name}.")
        return value

    @property
    def n_other(self) -> int:
        """Return the number of parameters elsewhere: embedding, head, norms, biases."""
        return self.n_parameters - sum(linear.n_weights for linear in self.quantised)


def bits_per_weight(double: bool = True, block: int = 64) -> float:
    """Return the bits that nf4 and fp4 take for a weight: 4, and a scale for each block.

    A scale is a float32; double quantised it is 8 bits, with a float32 for 256 of them.

    >>> round(bits_per_weight(), 3), bits_per_weight(double=False)
    (4.127, 4.5)
    """
    return 4 + ((8 + 32 / 256) / block if double else 32 / block)


def read_shapes(name: str | os.PathLike[str]) -> Shapes:
    """Return the shapes of a model: "QwQ-32B", a config.json, or whatever `Checkpoint` takes.

    Raise ModelFileError for a configuration that describes no language model of transformers.
    """
    known = KNOWN.get(os.fspath(name).strip().casefold())
    path = paths.from_user(name)
    if known:
        path = paths.data_dir() / "configs" / f"{known.lower()}.json"
    if path.suffix == ".json":
        if not path.is_file():
            raise ModelFileError(f"{path} is no file; name a config.json, a folder, or QwQ-32B.")
        title, config = known or path.name, read_config(path)
    else:
        checkpoint = Checkpoint(name)
        title, config, path = checkpoint.title, checkpoint.config(), checkpoint.folder
    found = read_quantisation(config, path)
    skip = found.get("llm_int8_skip_modules")
    if skip is not None:
        skip = check_skip_list(skip, f"llm_int8_skip_modules of {path}")
    model = build_skeleton(config, path, buffers=False)
    linears = list_linears(model)
    if all(linear.is_head for linear in linears):
        raise ModelFileError(
            f"{path}: bitsandbytes quantises no module of {config.model_type!r}, as it has no "
            "linear ones of the plain kind but the head."
        )
    shared = {*model.all_tied_weights_keys, *model.all_tied_weights_keys.values()}
    return Shapes(
        name=title,
        linears=linears,
        n_parameters=sum(parameter.numel() for parameter in model.parameters()),
        model=model,
        tied=any(each.is_head and f"{each.name}.weight" in shared for each in linears),
        skip=skip,
        double=bool(found.get("bnb_4bit_use_double_quant", not found)),
    )


@dataclass(frozen=True)
class Audit:
    """What a skip list costs: bytes of all weights, and bits a weight of linear modules but head.

    n_other counts the weights elsewhere, which stay in 16 bits: embedding, head, norms, and experts
    that are one tensor. kept: modules in 16 bits, the head aside. dead: entries that fit no linear
    module.
    """

    name: str
    kept: tuple[str, ...]
    dead: tuple[str, ...]
    head_kept: bool
    bits_per_weight: float
    n_linears: int
    n_other: int
    n_bytes: int
    naive_bytes: int

    @property
    def extra(self) -> float:
        """Return by which share it is larger than with nothing but the head in 16 bits."""
        return self.n_bytes / self.naive_bytes - 1

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {**asdict(self), "extra": self.extra, "gb": self.n_bytes / GB}

    def as_text(self) -> str:
        """Return its numbers as lines of text, and what is odd about the list."""
        lines = [
            f"{self.name}: {self.n_bytes / GB:.2f} GB ({self.n_bytes / GIB:.2f} GiB), "
            f"{100 * self.extra:+.1f} % over naive 4-bit",
            f"{self.bits_per_weight:.3f} bits a weight in {self.n_linears} linear modules, "
            f"{len(self.kept)} of them in 16 bits",
            f"{self.n_other:,} weights elsewhere in 16 bits: {2 * self.n_other / GB:.2f} GB",
        ]
        if not self.head_kept:
            lines.append("the head is in 4 bits: it is not in the list")
        return "\n".join([*lines, *(f"{entry!r} fits no linear module" for entry in self.dead)])


def audit(
    shapes: Shapes, skip: Sequence[str] | None = None, double: bool = True, name: str = ""
) -> Audit:
    """Count what a skip list keeps, without any weights. None is the head alone."""
    resolved = resolve_skip_list(skip, shapes.linears)
    kept = set(resolved.kept)
    bits = bits_per_weight(double)
    n_weights = sum(linear.n_weights for linear in shapes.quantised)
    n_kept = sum(linear.n_weights for linear in shapes.quantised if linear.name in kept)
    n_head = sum(
        each.n_weights for each in shapes.linears if each.is_head and each.name not in kept
    )
    linear_bits = n_kept * 16 + (n_weights - n_kept) * bits
    # A head in 4 bits no longer shares an embedding: the embedding stays, and the head is added.
    head_bits = n_head * (bits - (0 if shapes.tied else 16))
    return Audit(
        name=name or shapes.name,
        kept=tuple(each.name for each in shapes.quantised if each.name in kept),
        dead=resolved.dead,
        head_kept=n_head == 0,
        bits_per_weight=linear_bits / n_weights,
        n_linears=len(shapes.quantised),
        n_other=shapes.n_other - (0 if shapes.tied else n_head),
        n_bytes=round((linear_bits + head_bits) / 8) + 2 * shapes.n_other,
        naive_bytes=round(n_weights * bits_per_weight() / 8) + 2 * shapes.n_other,
    )


@dataclass(frozen=True)
class Line:
    """One part of a ledger.

    when:    "always", "training" or "generating": in which of the two totals it counts.
    basis:   "computed" from the model's shapes, or "assumed" of the software; how says from what.
    """

    part: str
    n_bytes: int
    when: str
    basis: str
    how: str

    @property
    def gb(self) -> float:
        return self.n_bytes / GB

    @property
    def gib(self) -> float:
        return self.n_bytes / GIB


@dataclass(frozen=True)
class Ledger:
    """All parts for one model and one way to run it, line by line."""

    model: str
    quant: str
    rank: int
    batch: int
    context: int
    engine: str
    lines: tuple[Line, ...]

    def total(self, when: str) -> int:
        """Return the bytes in all while "training" or "generating"."""
        return sum(line.n_bytes for line in self.lines if line.when in ("always", when))

    def as_text(self) -> str:
        """Return the ledger as lines of text."""
        rows = [(e.n_bytes, f"{e.part} ({e.when}, {e.basis}): {e.how}") for e in self.lines]
        rows += [(self.total(when), f"in all while {when}") for when in TOTALS]
        return "\n".join(f"{n / GB:8.2f} GB {n / GIB:8.2f} GiB  {said}" for n, said in rows)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values, with both totals; all sizes in bytes, GB and GiB."""
        totals = {when: self.total(when) for when in TOTALS}
        return {
            **asdict(self),
            "lines": [{**asdict(line), "gb": line.gb, "gib": line.gib} for line in self.lines],
            "totals": {
                when: {"n_bytes": total, "gb": total / GB, "gib": total / GIB}
                for when, total in totals.items()
            },
        }


def ledger(
    shapes: Shapes,
    quant: str = "nf4",
    rank: int = 32,
    batch: int = 2,
    context: int = 2048,
    kept: int = 0,
    engine: str = "peft",
    checkpointing: bool = True,
) -> Ledger:
    """Return what a model takes; raise SettingError for numbers out of range.

    rank:    of the LoRA adapters on all linear modules but the head; 0 for none.
    context: tokens of each of the batch's sequences.
    kept:    weights that stay in 16 bits although the quant is of 4 (see `audit`).
    engine:  "peft", or "unsloth" on a GPU, which keeps less there while it trains.
    checkpointing: compute activations again rather than keep them, as `Recipe` says.
    """
    for name, choice, known in (("quant", quant, QUANTS), ("engine", engine, TRAINERS)):
        if choice not in known:
            raise SettingError(f"{name}={choice!r} is not one of {', '.join(known)}")
    for name, value, least in (("rank", rank, 0), ("batch", batch, 1), ("context", context, 1)):
        check_number(name, value, int, least, INT_MAX)
    unsloth = engine == "unsloth"
    fields = _list_lines(shapes, quant, rank, batch, context, kept, unsloth, checkpointing)
    lines = tuple(Line(*each) for each in fields)
    return Ledger(shapes.name, quant, rank, batch, context, engine, lines)


def fit_vllm(shapes: Shapes, weights: int, card: int = 24 * GIB) -> int:
    """Return the tokens of KV cache, a multiple of 256, for which `vllm_command` leaves room.

    weights: bytes of a model in 4 bits, as they lie on the disk. card: bytes of the card. The rest
    is as in the ledger: a module decoded, a layer's activations, CUDA and PyTorch, of which the
    last two are assumed; vLLM itself was not run. Raise SettingError if there is no room.
    """
    parts = {line.part: line.n_bytes for line in ledger(shapes, "nf4", 0, 1, BATCH_TOKENS).lines}
    beside = ("one module decoded", "activations, one layer at a time", "CUDA and PyTorch")
    free = int(card * UTILIZATION) - weights - sum(parts[name] for name in beside)
    tokens = free // (2 * sum(layer.per_token for layer in shapes.cache)) // 256 * 256
    if tokens < 256:
        raise SettingError(
            f"weights of {weights / GB:.1f} GB leave no room for a context on a card of "
            f"{card / GIB:.0f} GiB in vLLM; take a smaller upload or a larger card"
        )
    return tokens


def _list_lines(
    shapes: Shapes,
    quant: str,
    rank: int,
    batch: int,
    context: int,
    kept: int,
    unsloth: bool,
    checkpointing: bool,
) -> Iterator[tuple[str, int, str, str, str]]:
    """Yield the fields of each `Line`."""
    tokens = batch * context
    modules = shapes.quantised
    n_weights, n_other = sum(linear.n_weights for linear in modules), shapes.n_other
    bits = 16.0 if quant == "bf16" else bits_per_weight()
    linear_bytes = round(((n_weights - kept) * bits + 16 * kept) / 8)
    kept_says = f", {kept:,} of them in 16" if kept else ""
    yield (
        "weights", linear_bytes + 2 * n_other, "always", "computed",
        f"{n_weights:,} in {len(modules)} linear modules at {bits:.3f} bits{kept_says} "
        f"({linear_bytes / GB:.2f} GB), {n_other:,} others in 16 ({2 * n_other / GB:.2f} GB)",
    )  # fmt: skip
    held = sum(layer.count(context) for layer in shapes.cache)
    per_token = sum(layer.per_token for layer in shapes.cache)
    at_most = " at most" if any(layer.most for layer in shapes.cache) else ""
    yield (
        "KV cache", 2 * batch * held, "generating", "computed",
        f"{tokens:,} tokens of {2 * per_token:,} bytes{at_most}, f16; training keeps none",
    )  # fmt: skip
    adapters = sum(rank * (linear.n_in + linear.n_out) for linear in modules)
    yield (
        "LoRA adapters", 4 * adapters, "always", "computed",
        f"rank {rank}: {adapters:,} numbers, float32 as peft keeps them",
    )  # fmt: skip
    yield "gradients", 4 * adapters, "training", "computed", f"of {adapters:,} numbers, float32"
    yield (
        "optimiser", round(adapters * (2 + 8 / 256)), "training", "computed",
        "adamw_8bit: two states of 8 bits, a float32 for each 256",
    )  # fmt: skip
    width, n_layers, n_rows = map(shapes.ask, ("hidden_size", "num_hidden_layers", "vocab_size"))
    inner = max(linear.n_in for linear in modules)
    between, within = tokens * width * 2, tokens * 2 * (6 * width + 5 * inner)
    if checkpointing:
        how = f"checkpointing keeps each layer's input, {n_layers} x {tokens:,} tokens, bf16"
        if unsloth:  # gradient_checkpointing of unsloth_zoo 2026.10.9, which has two buffers
            in_ram = f"{n_layers * between / GB:.2f} GB in the computer's own memory"
            how += f": {in_ram}, two of them here"
        yield (
            "activations, kept between layers", between * (2 if unsloth else n_layers),
            "training", "assumed", how,
        )  # fmt: skip
    yield (
        "activations, one layer at a time" if checkpointing else "activations, kept of all layers",
        within * (1 if checkpointing else n_layers), "training", "assumed",
        ("computed again for its gradients: " if checkpointing else f"of {n_layers} layers ")
        + "about 6 hidden and 5 intermediate rows a token, bf16",
    )  # fmt: skip
    # unsloth_zoo 2026.10.9, fused_losses: at least four chunks, 16 bytes for each of their numbers.
    how = "16 bytes each, a quarter of them at a time" if unsloth else "float32 twice"
    yield (
        "logits and their gradient", tokens * n_rows * (16 // 4 if unsloth else 4 + 4),
        "training", "assumed", f"{tokens:,} tokens x {n_rows:,}, {how}",
    )  # fmt: skip
    if quant != "bf16":
        largest = max(modules, key=lambda linear: linear.n_weights)
        yield (
            "one module decoded", 2 * largest.n_weights, "always", "computed",
            f"{largest.kind} in bf16 while it is multiplied",
        )  # fmt: skip
    yield "CUDA and PyTorch", 600_000_000, "always", "assumed", "context, kernels, fragments"
