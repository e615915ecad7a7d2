"""A ledger of memory: what each part of fine-tuning or running a model takes, line by line.

GB are 10^9 bytes, GiB 2^30: a card of "24 GB" holds 24 GiB, 25.8 GB.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import SettingError
from .shapes import Shapes, bits_per_weight

GB, GIB = 10**9, 2**30

MOST = 10**7  # of rank, batch and context

QUANTS = ("nf4", "fp4", "bf16")
"""nf4 and fp4 with double quantisation, as QLoRA and Unsloth load them."""


@dataclass(frozen=True)
class Line:
    """One part.

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

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values, in bytes, GB and GiB."""
        return {**asdict(self), "gb": self.gb, "gib": self.gib}


@dataclass(frozen=True)
class Ledger:
    """All parts for one model and one way to run it."""

    model: str
    quant: str
    rank: int
    batch: int
    context: int
    lines: tuple[Line, ...]

    def total(self, when: str) -> int:
        """Bytes in all while "training" or "generating"."""
        return sum(line.n_bytes for line in self.lines if line.when in ("always", when))

    def describe(self) -> str:
        """The ledger as lines of text."""
        rows = [
            f"{line.gb:8.2f} GB {line.gib:8.2f} GiB  {line.part} ({line.when}, {line.basis}): "
            f"{line.how}"
            for line in self.lines
        ]
        totals = [
            f"{total / GB:8.2f} GB {total / GIB:8.2f} GiB  in all while {when}"
            for when in ("training", "generating")
            if (total := self.total(when))
        ]
        return "\n".join([*rows, *totals])

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values, with both totals."""
        totals = {when: self.total(when) for when in ("training", "generating")}
        return {
            **{name: value for name, value in vars(self).items() if name != "lines"},
            "lines": [line.to_dict() for line in self.lines],
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
) -> Ledger:
    """What a model takes; SettingError for numbers that make no sense.

    rank:    of the LoRA adapters on all linear modules but the head; 0 for none.
    context: tokens of each of the batch's sequences.
    kept:    weights that stay in 16 bits although the quant is of 4 (see `skip_list.audit`).
    """
    if quant not in QUANTS:
        raise SettingError(f"quant={quant!r} is not one of {', '.join(QUANTS)}")
    for name, value, least in (("rank", rank, 0), ("batch", batch, 1), ("context", context, 1)):
        if not least <= value <= MOST:
            raise SettingError(f"{name}={value} is out of range; give {least} to {MOST:,}")
    lines = tuple(_list_lines(shapes, quant, rank, batch * context, kept))
    return Ledger(shapes.name, quant, rank, batch, context, lines)


def _list_lines(s: Shapes, quant: str, rank: int, tokens: int, kept: int) -> Iterator[Line]:
    n_weights = sum(linear.n_weights for linear in s.quantised)
    if not 0 <= kept <= n_weights:
        raise SettingError(f"kept={kept} is out of range; the modules have {n_weights} weights")
    bits = 16.0 if quant == "bf16" else bits_per_weight()
    linear_bytes = round(((n_weights - kept) * bits + 16 * kept) / 8)
    kept_says = f", {kept:,} of them in 16" if kept else ""
    yield Line(
        "weights",
        *(linear_bytes + 2 * s.n_other, "always", "computed"),
        f"{n_weights:,} in {len(s.quantised)} linear modules at {bits:.3f} bits{kept_says} "
        f"({linear_bytes / GB:.2f} GB), {s.n_other:,} others in 16 ({2 * s.n_other / GB:.2f} GB)",
    )
    per_token = 2 * s.n_layers * s.n_kv_heads * s.head_dim * 2
    yield Line(
        "KV cache",
        *(tokens * per_token, "generating", "computed"),
        f"{tokens:,} tokens of {per_token:,} bytes, f16; training keeps none",
    )
    adapters = sum(rank * (linear.n_in + linear.n_out) for linear in s.quantised)
    yield Line(
        "LoRA adapters",
        *(4 * adapters, "always", "computed"),
        f"rank {rank}: {adapters:,} numbers, float32 as peft keeps them",
    )
    yield Line(
        "gradients", 4 * adapters, "training", "computed", f"of {adapters:,} numbers, float32"
    )
    yield Line(
        "optimiser",
        *(round(adapters * (2 + 8 / 256)), "training", "computed"),
        "adamw_8bit: two states of 8 bits, a float32 for each 256",
    )
    yield Line(
        "activations, kept between layers",
        *(tokens * s.hidden_size * 2 * s.n_layers, "training", "assumed"),
        f"checkpointing keeps each layer's input, {s.n_layers} x {tokens:,} tokens, bf16; "
        "Unsloth moves them to the computer's own memory",
    )
    yield Line(
        "activations, one layer at a time",
        *(tokens * 2 * (6 * s.hidden_size + 5 * s.intermediate_size), "training", "assumed"),
        "computed again for its gradients: about 6 hidden and 5 intermediate rows a token, bf16",
    )
    yield Line(
        "logits and their gradient",
        *(tokens * s.n_vocab * (4 + 4), "training", "assumed"),
        f"{tokens:,} tokens x {s.n_vocab:,}, float32 twice; Unsloth goes in chunks and keeps less",
    )
    if quant != "bf16":
        largest = max(s.quantised, key=lambda linear: linear.n_weights)
        yield Line(
            "one module decoded",
            *(2 * largest.n_weights, "always", "computed"),
            f"{largest.kind} in bf16 while it is multiplied",
        )
    yield Line("CUDA and PyTorch", 600_000_000, "always", "assumed", "context, kernels, fragments")
