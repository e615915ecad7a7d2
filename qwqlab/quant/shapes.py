"""The shapes of a model, from its configuration alone: what audits and ledgers count."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import paths
from ..errors import ModelFileError, first_lines
from ..tokenizers import import_transformers
from .checkpoint import Checkpoint, build_skeleton, check_layers, list_linears
from .linears import HEAD, Linear

KNOWN = {"qwq-32b": "QwQ-32B"}
"""Models whose configuration ships with the lab, in data/configs/, by their names in small."""

FOUR_BIT_BITS = {"nf4": 4.127, "fp4": 4.127}


@dataclass(frozen=True)
class Shapes:
    """How large a model's parts are.

    linears: every linear module, the head among them. n_parameters counts a tied head once.
    tied:    whether the head shares the embedding's weights.
    skip:    what its configuration tells bitsandbytes to leave in 16 bits; None if it says nothing.
    double:  whether that configuration quantises the scales as well; True if it says nothing.
    """

    name: str
    linears: tuple[Linear, ...]
    n_parameters: int
    hidden_size: int
    intermediate_size: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    n_vocab: int
    tied: bool
    skip: tuple[str, ...] | None
    double: bool

    @property
    def quantised(self) -> tuple[Linear, ...]:
        """What transformers quantises if told nothing: all linear modules but the head."""
        return tuple(linear for linear in self.linears if linear.name != HEAD)

    @property
    def n_other(self) -> int:
        """Parameters that are not in those: embedding, head, norms, biases."""
        return self.n_parameters - sum(linear.n_weights for linear in self.quantised)


def bits_per_weight(double: bool = True, block: int = 64) -> float:
    """Bits that nf4 and fp4 take for a weight: 4, and a scale for each block.

    A scale is a float32; double quantised it is 8 bits, with a float32 for 256 of them.

    >>> round(bits_per_weight(), 3), bits_per_weight(double=False)
    (4.127, 4.5)
    """
    return 4 + ((8 + 32 / 256) / block if double else 32 / block)


def read_shapes(name: str | os.PathLike[str]) -> Shapes:
    """The shapes of a model: "QwQ-32B", a config.json, or whatever `Checkpoint` takes.

    ModelFileError for a configuration that describes no language model of transformers.
    """
    known = KNOWN.get(os.fspath(name).strip().casefold())
    path = paths.from_user(name)
    if known:
        path = paths.data_dir() / "configs" / f"{known.lower()}.json"
    elif path.suffix == ".json" and not path.is_file():
        raise ModelFileError(f"{path} is not a file; name a config.json, a folder, or QwQ-32B.")
    elif path.suffix != ".json":
        checkpoint = Checkpoint(name)
        return _measure(checkpoint.title, checkpoint.config(), checkpoint.folder)
    return _measure(known or path.name, read_config(path), path)


def read_config(path: Path) -> Any:
    """transformers' configuration in a config.json."""
    try:
        values = json.loads(path.read_bytes())
        kind = values.pop("model_type")
        config = import_transformers().AutoConfig.for_model(kind, **values)
        # transformers takes sizes of its own for those that are not stated.
        size = config.attribute_map.get("num_hidden_layers", "num_hidden_layers")
        if not values.keys() & {size, "num_hidden_layers", "text_config"}:
            raise ValueError(f"it states no {size}")
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}.") from error
    except Exception as error:  # transformers checks a configuration in many ways of its own
        said = first_lines(error)
        raise ModelFileError(f"{path} is no configuration of a language model: {said}") from error
    return check_layers(config, path)


def _measure(name: str, config: Any, path: Path) -> Shapes:
    model = build_skeleton(config, path)
    heads = config.num_attention_heads
    quantisation = getattr(config, "quantization_config", None) or {}
    if not isinstance(quantisation, dict):
        quantisation = quantisation.to_dict()
    skip = quantisation.get("llm_int8_skip_modules")
    if quantisation and not quantisation.get("load_in_4bit", quantisation.get("_load_in_4bit")):
        raise ModelFileError(f"{path} is quantised, but not to 4 bits by bitsandbytes.")
    if skip is not None and not all(isinstance(entry, str) for entry in skip):
        raise ModelFileError(f"{path}: llm_int8_skip_modules is not a list of names.")
    return Shapes(
        name=name,
        linears=list_linears(model),
        n_parameters=sum(parameter.numel() for parameter in model.parameters()),
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        n_layers=config.num_hidden_layers,
        n_heads=heads,
        n_kv_heads=getattr(config, "num_key_value_heads", heads),
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        n_vocab=config.vocab_size,
        tied=bool(config.tie_word_embeddings),
        skip=None if skip is None else tuple(skip),
        double=bool(quantisation.get("bnb_4bit_use_double_quant", True)),
    )
