"""Which modules stay in 16 bits: transformers' skip lists, read as transformers reads them.

An entry of `llm_int8_skip_modules` is a regular expression that a module's name begins with, or a
text that it ends in. One that fits nothing is passed over in silence; "model.layers.1" fits layers
10 to 19 too; and a list without "lm_head" quantises the head. So a list is tried on a model's names
before it is believed; `four_bit` looks at a loaded model too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import files
from ..errors import SettingError
from .codecs import BnbCodec
from .linears import HEAD, Linear, to_gguf
from .shapes import Shapes, bits_per_weight

SIXTEEN = "bf16"


@dataclass(frozen=True)
class Resolved:
    """What a skip list does to a model.

    kept:  modules that stay in 16 bits. dead: entries that fit no linear module.
    """

    kept: tuple[str, ...]
    dead: tuple[str, ...]


def resolve(skip: Sequence[str] | None, linears: Sequence[Linear]) -> Resolved:
    """Try a skip list on a model's linear modules; None is transformers' own choice, the head.

    SettingError for an entry that is no regular expression, which transformers would end on.

    >>> pair = [Linear(f"model.layers.{k}.mlp.up_proj", 8, 8) for k in (1, 10)]
    >>> len(resolve(["model.layers.1"], pair).kept), resolve(["layers.1.mlp"], pair).dead
    (2, ('layers.1.mlp',))
    """
    if skip is None:
        return Resolved(tuple(linear.name for linear in linears if linear.name == HEAD), ())
    fits = {entry: [each.name for each in linears if _fits(entry, each.name)] for entry in skip}
    chosen = {name for names in fits.values() for name in names}
    return Resolved(
        tuple(linear.name for linear in linears if linear.name in chosen),
        tuple(entry for entry, names in fits.items() if not names),
    )


def _fits(entry: str, name: str) -> bool:
    from transformers.quantizers.quantizers_utils import should_convert_module

    try:
        return not should_convert_module(name, [entry])
    except (re.error, RecursionError, OverflowError) as error:
        raise SettingError(f"{entry!r} in a skip list is no regular expression: {error}") from error


def make_skip_list(keep: Iterable[str], linears: Sequence[Linear]) -> list[str]:
    """A skip list that keeps just these modules, and the head; SettingError if there is none."""
    wanted = {*keep, *(linear.name for linear in linears if linear.name == HEAD)}
    skip = [linear.name for linear in linears if linear.name in wanted]
    resolved = resolve(skip, linears)
    if set(resolved.kept) != wanted or resolved.dead:
        odd = sorted(wanted ^ set(resolved.kept)) or list(resolved.dead)
        raise SettingError(f"no skip list keeps just these modules: {', '.join(odd[:5])}")
    return skip


MOST_BYTES = 16_000_000


def read_skip_file(path: Path) -> list[str]:
    """A skip list from JSON: a list of names, or an object with one under "skip", as `select`
    writes it, or under "llm_int8_skip_modules". SettingError for any other file.
    """
    try:
        values = json.loads(files.read_bytes(path, MOST_BYTES))
    except OSError as error:
        raise SettingError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise SettingError(f"{path} is not JSON; give what `qwqlab select --json` wrote") from error
    if isinstance(values, dict):
        values = values.get("skip", values.get("llm_int8_skip_modules"))
    if not isinstance(values, list) or not all(isinstance(entry, str) for entry in values):
        raise SettingError(f"{path} holds no list of module names; give one, or one under `skip`")
    return values


def bnb_options(skip: Sequence[str], codec: BnbCodec) -> dict[str, Any]:
    """The arguments of transformers' BitsAndBytesConfig; it takes no other block than 64."""
    if codec.block != 64:
        raise SettingError(f"{codec.name}: transformers' BitsAndBytesConfig has blocks of 64 only")
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": codec.quant_type,
        "bnb_4bit_use_double_quant": codec.double,
        "bnb_4bit_compute_dtype": "bfloat16",
        "llm_int8_skip_modules": list(skip),
    }


def tensor_types(keep: Iterable[str], linears: Sequence[Linear], tied: bool) -> list[str]:
    """llama-quantize's flags that keep the same modules, and head and embedding, in 16 bits.

    A name before the `=` is a regular expression that is searched for, so it is anchored.
    """
    wanted = {name for name in keep if name != HEAD}
    names = [to_gguf(linear.name) for linear in linears if linear.name in wanted]
    names += ["token_embd.weight"] if tied else ["token_embd.weight", to_gguf(HEAD)]
    patterns = [f"^{re.escape(name)}$={SIXTEEN}" for name in names]
    return [word for pattern in patterns for word in ("--tensor-type", pattern)]


@dataclass(frozen=True)
class Audit:
    """What a skip list costs: bytes of all weights, and bits a weight of linear modules but head.

    kept: modules in 16 bits, the head aside.
    """

    name: str
    kept: tuple[str, ...]
    dead: tuple[str, ...]
    head_kept: bool
    bits_per_weight: float
    n_bytes: int
    naive_bytes: int

    @property
    def extra(self) -> float:
        """By which share it is larger than with nothing but the head in 16 bits."""
        return self.n_bytes / self.naive_bytes - 1

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return {**asdict(self), "extra": self.extra, "gb": self.n_bytes / 1e9}

    def describe(self) -> str:
        """Its numbers as lines of text, and what is odd about the list."""
        lines = [
            f"{self.name}: {self.n_bytes / 1e9:.2f} GB ({self.n_bytes / 2**30:.2f} GiB), "
            f"{self.bits_per_weight:.3f} bits a weight, {100 * self.extra:+.1f} % over naive 4-bit",
            f"{len(self.kept)} linear modules in 16 bits besides the head",
        ]
        if not self.head_kept:
            lines.append(f"the head is in 4 bits: {HEAD} is not in the list")
        return "\n".join([*lines, *(f"{entry!r} fits no linear module" for entry in self.dead)])


def audit(
    shapes: Shapes, skip: Sequence[str] | None = None, double: bool = True, name: str = ""
) -> Audit:
    """Count what a skip list keeps, without any weights. None is the head alone."""
    resolved = resolve(skip, shapes.linears)
    kept = set(resolved.kept)
    bits = bits_per_weight(double)
    n_weights = sum(linear.n_weights for linear in shapes.quantised)
    n_kept = sum(linear.n_weights for linear in shapes.quantised if linear.name in kept)
    head = next((linear for linear in shapes.linears if linear.name == HEAD), None)
    linear_bits = n_kept * 16 + (n_weights - n_kept) * bits
    # A head in 4 bits no longer shares an embedding: the embedding stays, and the head is added.
    head_bits = 0.0
    if head is not None and HEAD not in kept:
        head_bits = head.n_weights * (bits - (0 if shapes.tied else 16))
    return Audit(
        name=name or shapes.name,
        kept=tuple(each for each in resolved.kept if each != HEAD),
        dead=resolved.dead,
        head_kept=HEAD in kept,
        bits_per_weight=linear_bits / n_weights,
        n_bytes=round((linear_bits + head_bits) / 8) + 2 * shapes.n_other,
        naive_bytes=round(n_weights * bits_per_weight() / 8) + 2 * shapes.n_other,
    )
