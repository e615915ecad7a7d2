"""The linear modules of a decoder: their names in transformers and in a GGUF, kinds and layers."""

from __future__ import annotations

import re
from dataclasses import dataclass

GGUF_KINDS = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}
KINDS = tuple(GGUF_KINDS)
HEAD = "lm_head"
_PARENTS = {kind: "self_attn" if kind[0] in "qkvo" else "mlp" for kind in KINDS}


@dataclass(frozen=True)
class Linear:
    """One linear module. n_out rows of n_in numbers: y = x W^T."""

    name: str
    n_out: int
    n_in: int

    @property
    def kind(self) -> str:
        """The last part of its name.

        >>> Linear("model.layers.3.mlp.down_proj", 576, 1536).kind
        'down_proj'
        """
        return self.name.rpartition(".")[2]

    @property
    def layer(self) -> int | None:
        """The first number in its name; None for what stands in no layer.

        >>> Linear("model.layers.3.mlp.down_proj", 576, 1536).layer
        3
        """
        numbers = (part for part in self.name.split(".") if part.isdecimal())
        return next(map(int, numbers), None)

    @property
    def n_weights(self) -> int:
        return self.n_out * self.n_in


def to_gguf(name: str) -> str:
    """The tensor of a GGUF that holds a module; its own name where the lab knows no other.

    >>> to_gguf("model.layers.3.mlp.down_proj")
    'blk.3.ffn_down.weight'
    """
    linear = Linear(name, 0, 0)
    if name == HEAD:
        return "output.weight"
    if linear.kind in GGUF_KINDS and linear.layer is not None:
        return f"blk.{linear.layer}.{GGUF_KINDS[linear.kind]}.weight"
    return f"{name}.weight"


def from_gguf(tensor: str) -> str | None:
    """The module that a tensor of a GGUF holds; None for a tensor that is no linear module.

    >>> from_gguf("blk.3.ffn_down.weight"), from_gguf("blk.3.ffn_norm.weight")
    ('model.layers.3.mlp.down_proj', None)
    """
    if tensor == "output.weight":
        return HEAD
    found = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", tensor)
    kind = next((kind for kind, name in GGUF_KINDS.items() if found and found[2] == name), None)
    if found is None or kind is None:
        return None
    return f"model.layers.{int(found[1])}.{_PARENTS[kind]}.{kind}"
