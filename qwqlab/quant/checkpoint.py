"""A model's files for transformers: a GGUF or a folder of safetensors, and its linear modules.

A GGUF is unpacked once into a folder that transformers reads; what needs no weights (names,
shapes, a configuration) is read without them. No network is asked, and no code of a model's
folder runs.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from .. import files, paths
from ..errors import ModelFileError, QwqlabError, SettingError, first_lines
from ..llamacpp import FILE_TYPES, Loading, Model
from ..models import (
    TransformersTokenizer,
    check_loads,
    check_tokenizes,
    hash_model,
    import_transformers,
    inspect,
    model_path,
    offline,
    readable,
)

LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
TOKENIZER = "tokenizer.json"
_PROBE = 7
"""Tokens that a skeleton is run on: a length that no kernel or head of a model is known to have."""
MOST_LAYERS = 10_000
"""Of a skeleton, which takes time and memory for each: a hundred times what the largest have."""
N_CTX = 512
"""Tokens of a block of text, as in llama-perplexity."""
# Hold this while making a model: for a skeleton accelerate changes torch in the whole process, so
# that a model made in another thread at that time would have no weights either.
making_a_model = threading.RLock()

KINDS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""The linear modules of a layer, in its order, and their names in a GGUF."""
HEAD = "lm_head"


class Checkpoint:
    """The files of one model.

    name: a name that `fetch.model_path` knows, a .gguf file, or a folder that transformers reads.
    Raise FetchError if it is not on this machine, ModelFileError if it can't be read.
    """

    def __init__(self, name: str | os.PathLike[str]) -> None:
        path = paths.from_user(name)
        self.path = path if path.is_dir() else model_path(name)
        self.title = self.path.name
        self.info = None if self.path.is_dir() else inspect(self.path)
        if self.info is None and not (self.path / "config.json").is_file():
            raise ModelFileError(f"{self.path} holds no config.json; give a model's own folder.")

    def identify(self) -> str:
        """Return a hash that changes when the model does.

        It is made from a GGUF's bytes, or from the names, sizes and times of a folder's files.
        """
        if self.info is not None:
            return hash_model(self.info)
        digest = hashlib.sha256()
        for file in sorted(self.path.iterdir()):
            stat = file.stat()
            digest.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    @property
    def precision(self) -> str:
        """Return the grid that its weights lie on: a GGUF's quant, or "16 or 32 bits"."""
        if self.info is None:
            return "16 or 32 bits"
        return self.info.file_type if self.info.file_type in FILE_TYPES.values() else "a mix"

    @cached_property
    def folder(self) -> Path:
        """Return the model as transformers reads it: its own folder, or the GGUF in float32.

        The float32 copy is made once and kept in models_dir(), under the GGUF's hash. Raise
        SettingError if memory has no room for it, FetchError if the disk has none.
        """
        if self.info is None:
            return self.path
        kept = paths.models_dir() / f"{self.path.stem}-{self.identify()[:12]}"
        if not kept.is_dir():
            check_room(2 * self.n_bytes, f"Unpacking {self.title}")
            remedy = "set QWQLAB_HOME to a larger disk"
            files.check_disk(paths.models_dir(), self.n_bytes, kept.name, remedy)
            check_loads(self.path)
            _unpack(self.path, kept)
        return kept

    def config(self) -> Any:
        """Return transformers' configuration of the model."""
        return read_config(self.folder)

    @property
    def quantisation(self) -> dict[str, Any]:
        """Return how its configuration states that it is in 4 bits already; {} if it is not."""
        return read_quantisation(self.config(), self.path)

    def skeleton(self) -> Any:
        """Return the model without weights: every module under its name, and no memory taken."""
        return build_skeleton(self.config(), self.folder)

    def load(self, packed: bool = False, **options: Any) -> Any:
        """Return the model in memory, float32 unless `options` of from_pretrained say otherwise.

        packed: load a model that is quantised already as it is; without it, raise ModelFileError.
        """
        if self.quantisation and not packed:
            raise ModelFileError(
                f"{self.path} is quantised already; give the folder of its 16-bit original."
            )
        options = {"dtype": torch.float32, **LOCAL, **options}
        config = self.config()
        with (
            making_a_model,
            _reading("a language model", self.folder) as transformers,
            readable(self.folder) as folder,
        ):
            auto = _find_class(transformers, config)
            return auto.from_pretrained(str(folder), **options).eval()

    def tokenize(self, text: str) -> list[int]:
        """Return a text's tokens, with nothing put before them; llama.cpp reads a GGUF's own."""
        if self.info is None:
            return TransformersTokenizer(self.path).encode([text])[0]
        check_tokenizes(self.path)
        with Model(self.path, Loading(device="none"), vocab_only=True) as model:
            tokens = model.tokenize_all([text], add_special=False, parse_special=True)
        return list(tokens[0])

    def tokenizer(self) -> Any:
        """Return transformers' tokenizer; a GGUF's is written beside its weights, once."""
        if self.info is not None and not (self.folder / TOKENIZER).is_file():
            with tempfile.TemporaryDirectory(dir=self.folder) as staged:
                # transformers takes 10 s to read a tokenizer from a GGUF.
                tokenizer = TransformersTokenizer(self.path).tokenizer
                for role in ("bos", "eos", "pad"):  # transformers takes another eos for its own
                    token = getattr(self.info.tokenizer, role)
                    text = None if token is None else tokenizer.convert_ids_to_tokens(token)
                    setattr(tokenizer, f"{role}_token", text)
                tokenizer.save_pretrained(staged)
                # tokenizer.json last: where it is, the others are too.
                for file in sorted(Path(staged).iterdir(), key=lambda each: each.name == TOKENIZER):
                    file.replace(self.folder / file.name)
        return TransformersTokenizer(self.folder).tokenizer

    def read_blocks(self, path: Path, n_tokens: int, n_ctx: int = N_CTX) -> torch.Tensor:
        """Return the first tokens of a text cut as llama-perplexity cuts it: n_blocks x n_ctx.

        A shorter text is one block of its length. Each block begins with BOS if the model's file
        says so. Raise SettingError for a text that can't be read or has fewer than two tokens.
        """
        if n_tokens < 2:
            raise SettingError(f"n_tokens={n_tokens} is out of range; give 2 or more")
        ids = self.tokenize(files.read_text(path))[:n_tokens]
        if len(ids) < 2:
            raise SettingError(f"{path} has {len(ids)} tokens; give a text of at least {n_ctx}")
        width = min(n_ctx, len(ids))
        blocks = torch.tensor(ids[: len(ids) // width * width]).view(-1, width)
        bos = self.info.tokenizer.bos if self.info and self.info.tokenizer.add_bos else None
        if bos is not None:
            blocks[:, 0] = bos
        return blocks

    @cached_property
    def n_bytes(self) -> int:
        """Return the bytes of all its weights in float32."""
        if self.info is not None:
            return 4 * self.info.n_parameters
        return 4 * int(sum(parameter.numel() for parameter in self.skeleton().parameters()))


@dataclass(frozen=True)
class Linear:
    """One linear module. n_out rows of n_in numbers: y = x W^T.

    is_head: whether transformers leaves it in 16 bits if told nothing.
    """

    name: str
    n_out: int
    n_in: int
    is_head: bool = False

    @property
    def kind(self) -> str:
        """Return the last part of its name.

        >>> Linear("model.layers.3.mlp.down_proj", 576, 1536).kind
        'down_proj'
        """
        return self.name.rpartition(".")[2]

    @property
    def layer(self) -> int | None:
        """Return the first number in its name; None for a module outside the layers.

        >>> Linear("model.layers.3.mlp.down_proj", 576, 1536).layer
        3
        """
        numbers = (part for part in self.name.split(".") if part.isdecimal())
        return next(map(int, numbers), None)

    @property
    def n_weights(self) -> int:
        return self.n_out * self.n_in


def list_linears(model: Any) -> tuple[Linear, ...]:
    """Return the linear modules of a model of transformers, in the order of its modules.

    Those that bitsandbytes would replace: torch.nn.Linear itself, not what inherits from it, and
    GPT-2's Conv1D.
    """
    from transformers.pytorch_utils import Conv1D
    from transformers.quantizers.base import get_keys_to_not_convert
    from transformers.quantizers.quantizers_utils import should_convert_module

    spared = get_keys_to_not_convert(model)
    found = []
    for name, module in model.named_modules():
        if type(module) is torch.nn.Linear or isinstance(module, Conv1D):
            n_out, n_in = orient(module, module.weight).shape
            found.append(Linear(name, n_out, n_in, not should_convert_module(name, spared)))
    return tuple(found)


def orient(module: Any, weight: torch.Tensor) -> torch.Tensor:
    """Return a linear module's weight as n_out x n_in; given so, as the module stores it."""
    from transformers.pytorch_utils import Conv1D

    return weight.T.contiguous() if isinstance(module, Conv1D) else weight


@dataclass(frozen=True)
class Growth:
    """How a layer's part of the cache grows: `per_token` numbers for each token, and `fixed` more.

    most: the tokens that it keeps, where a window slides; None if it keeps all.
    """

    per_token: int
    fixed: int
    most: int | None

    def count(self, n_tokens: int) -> int:
        """Return the numbers that it holds of one sequence."""
        kept = n_tokens if self.most is None else min(n_tokens, self.most)
        return self.per_token * kept + self.fixed


def measure_cache(model: Any, name: str) -> tuple[Growth, ...]:
    """Return how each layer's cache grows: a skeleton runs on a few tokens without computing.

    Configurations say it in too many ways. model: a skeleton without buffers. Raise ModelFileError,
    with `name`, for a model without a cache or that does not run so.
    """
    with _reading("a cache", Path(name)) as transformers, torch.inference_mode():
        for part in model.modules():  # a model may hold the language model within another
            is_model = isinstance(part, transformers.PreTrainedModel)
            if is_model and part._can_set_experts_implementation():
                part.set_experts_implementation("batched_mm")  # others look at the numbers
        tokens = torch.zeros((1, _PROBE), dtype=torch.long, device="meta")
        with torch.device("meta"):
            cache = getattr(model(input_ids=tokens, use_cache=True), "past_key_values", None)
        found = tuple(map(_measure_layer, getattr(cache, "layers", ())))
        if not found:
            raise ValueError(f"{model.config.model_type!r} keeps none")
    return found


def _measure_layer(layer: Any) -> Growth:
    held = [value for each in vars(layer).values() for value in list_states(each)]
    numbers = [value.numel() for value in held if _PROBE in value.shape[1:-1]]
    window = getattr(layer, "sliding_window", None)
    return Growth(
        per_token=sum(numbers) // _PROBE,
        fixed=sum(value.numel() for value in held) - sum(numbers),
        most=None if window is None else window - 1,
    )


def list_states(value: Any) -> list[torch.Tensor]:
    """Return the states among what a layer of a cache keeps; a counter is none."""
    values = value.values() if isinstance(value, dict) else [value]
    return [each for each in values if isinstance(each, torch.Tensor) and each.dim() > 2]


def to_gguf(name: str) -> str:
    """Return the name of the tensor of a GGUF that holds a module.

    >>> to_gguf("model.layers.3.mlp.down_proj"), to_gguf("model.norm")
    ('blk.3.ffn_down.weight', 'model.norm.weight')
    """
    if name == HEAD:
        return "output.weight"
    found = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", name)
    if found and found[2] in KINDS:
        return f"blk.{found[1]}.{KINDS[found[2]]}.weight"
    return f"{name}.weight"


def read_config(path: Path) -> Any:
    """Return transformers' configuration in a folder or a config.json."""
    file = path if path.is_file() else path / "config.json"
    values = files.parse_json(file, ModelFileError)
    if not isinstance(values, dict):
        raise ModelFileError(f"{file} holds no JSON object; give a model's config.json.")
    parts = [values]
    while parts:
        for key, value in parts.pop().items():
            if isinstance(value, dict):
                parts.append(value)
            elif type(value) is int and value > MOST_LAYERS and re.search("layer|depth", key):
                raise ModelFileError(
                    f"{file} gives {key} as {value}; the lab builds no such model."
                )
    with _reading("a configuration", path) as transformers, readable(path) as plain:
        return transformers.AutoConfig.from_pretrained(str(plain), **LOCAL)


def read_quantisation(config: Any, path: Path) -> dict[str, Any]:
    """Return how a configuration states that its model is in 4 bits; {} if it is not quantised.

    Raise ModelFileError, with `path`, for any other way than bitsandbytes' 4 bits.
    """
    found = getattr(config, "quantization_config", None)
    if found is None:  # some state it of their text part
        found = getattr(find_text(config), "quantization_config", None) or {}
    if not isinstance(found, dict):
        raise ModelFileError(f"{path} has no object under quantization_config; fetch it again.")
    if found and not found.get("load_in_4bit", found.get("_load_in_4bit")):
        raise ModelFileError(
            f"{path} is quantised by {found.get('quant_method')!r}, not to 4 bits by "
            "bitsandbytes; give another, or its 16-bit original."
        )
    return dict(found)


def find_text(config: Any) -> Any:
    """Return the part of a configuration that describes the language model, as a rule all of it."""
    return config.get_text_config(decoder=True)


def build_skeleton(config: Any, path: Path, buffers: bool = True) -> Any:
    """Return the model that a configuration describes, without weights; errors name `path`.

    buffers: fill its buffers, which a run of it needs and its shapes do not.
    """
    from accelerate import init_empty_weights

    config = copy.deepcopy(config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with making_a_model, _reading("a language model", path) as transformers:
        auto = _find_class(transformers, config)
        with init_empty_weights(include_buffers=False) if buffers else torch.device("meta"):
            model = auto.from_config(config, trust_remote_code=False).eval()
        model.tie_weights()  # or a head that shares the embedding would count twice
    return model


def _find_class(transformers: Any, config: Any) -> Any:
    """Return transformers' class for language models of this kind, with or without pictures."""
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(f"{config.model_type!r} has an encoder, and the lab counts decoders alone")
    for auto in (transformers.AutoModelForCausalLM, transformers.AutoModelForMultimodalLM):
        if type(config) in auto._model_mapping:
            return auto
    raise ValueError(f"{config.model_type!r} is none that writes text token by token")


def check_room(n_bytes: int, what: str) -> None:
    """Raise SettingError if so many bytes don't fit into the memory that is free now."""
    if n_bytes > (free := free_memory()):
        raise SettingError(
            f"{what} takes {n_bytes / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free; "
            "close other programs or take a smaller model."
        )


def free_memory() -> int:
    """Return the bytes of memory that a program could take now."""
    import psutil

    return int(psutil.virtual_memory().available)


@contextlib.contextmanager
def _reading(what: str, path: Path) -> Iterator[Any]:
    """Yield transformers, quiet and offline; what its readers raise becomes one ModelFileError."""
    transformers = import_transformers()
    logs = transformers.utils.logging
    level = logs.get_verbosity()
    logs.set_verbosity_error()
    try:
        with offline(), contextlib.redirect_stderr(io.StringIO()):  # where its bars go
            yield transformers
    except (MemoryError, QwqlabError):
        raise
    except Exception as error:
        said = first_lines(error)
        if not isinstance(error, (ValueError, OSError, ImportError)):  # worded for no reader
            said = f"a value in it is wrong ({type(error).__name__}: {said})"
        raise ModelFileError(f"transformers reads no {what[2:]} from {path}: {said}") from error
    finally:
        logs.set_verbosity(level)


def _unpack(path: Path, target: Path) -> None:
    """Write a GGUF as a folder of safetensors in float32, whole or not at all."""
    staged = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with making_a_model, _reading("a language model", path) as transformers:
            model = transformers.AutoModelForCausalLM.from_pretrained(
                str(path.parent), gguf_file=path.name, dtype=torch.float32, **LOCAL
            )
            # What came out of a GGUF counts as quantised, and would not be written.
            plain = build_skeleton(model.config, path)
            plain.load_state_dict(model.state_dict(), assign=True)
            plain.tie_weights()
            plain.save_pretrained(staged)
        files.place_folder(staged, target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
