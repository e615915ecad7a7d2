"""A model's files for transformers: a GGUF or a folder of safetensors.

Nothing is asked of a network, and no code of a model's folder runs.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from .. import fetch, files, gguf_file, paths, trial
from ..download import check_disk
from ..errors import ModelFileError, QwqlabError, SettingError, first_lines
from ..ggml_types import FILE_TYPES
from ..tokenizers import LlamaTokenizer, TransformersTokenizer, import_transformers
from .linears import Linear

LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
TOKENIZER = "tokenizer.json"
# Whoever makes a model holds it: for a skeleton accelerate changes torch in the whole process, so
# that a model made meanwhile in another thread would have no weights either.
making_a_model = threading.RLock()
MOST_LAYERS = 1000  # a config that asks for more asks for the machine's memory


class Checkpoint:
    """The files of one model.

    name: a name that `fetch.model_path` knows, a .gguf file, or a folder that transformers reads.
    FetchError for what is not there, ModelFileError for a file or a folder that can't be read.
    """

    def __init__(self, name: str | os.PathLike[str]) -> None:
        path = paths.from_user(name)
        self.is_folder = path.is_dir()
        self.path = path if self.is_folder else fetch.model_path(name)
        self.info = None if self.is_folder else gguf_file.inspect(self.path)
        if self.is_folder and not (self.path / "config.json").is_file():
            raise ModelFileError(f"{self.path} holds no config.json; give a model's own folder.")

    @property
    def title(self) -> str:
        """The file's or the folder's name."""
        return self.path.name

    def identify(self) -> str:
        """A hash that changes when the model does: of a GGUF's bytes, of the names, sizes and
        times of a folder's files."""
        if self.info is not None:
            return gguf_file.hash_model(self.info)
        digest = hashlib.sha256()
        for file in sorted(self.path.iterdir()):
            stat = file.stat()
            digest.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    @property
    def precision(self) -> str:
        """What its weights lie on: the quant of a GGUF, or "16 or 32 bits"."""
        if self.info is None:
            return "16 or 32 bits"
        return self.info.file_type if self.info.file_type in FILE_TYPES.values() else "a mix"

    @cached_property
    def folder(self) -> Path:
        """The model as transformers reads it: its own folder, or a copy of the GGUF in float32.

        The copy is made once, and kept in models_dir() while the GGUF is what it was. SettingError
        where memory has no room for it, FetchError where the disk has none.
        """
        if self.info is None:
            return self.path
        kept = paths.models_dir() / f"{self.path.stem}-{self.identify()[:12]}"
        if not kept.is_dir():
            n_bytes = 4 * self.info.n_parameters
            check_room(2 * n_bytes, f"Unpacking {self.title}")
            check_disk(paths.models_dir(), n_bytes, kept.name, "set QWQLAB_HOME to a larger disk")
            trial.check_loads(self.path)
            _unpack(self.path, kept)
        return kept

    def config(self) -> Any:
        """transformers' configuration of it."""
        with reading("a configuration", self.folder) as transformers:
            config = transformers.AutoConfig.from_pretrained(str(self.folder), **LOCAL)
        return check_layers(config, self.folder)

    @property
    def quantisation(self) -> dict[str, Any]:
        """What its configuration says of a quantisation that it has already; empty if none."""
        found = getattr(self.config(), "quantization_config", None) or {}
        return dict(found if isinstance(found, dict) else found.to_dict())

    def skeleton(self) -> Any:
        """The model without weights: every module by its name, nothing of its memory."""
        return build_skeleton(self.config(), self.folder)

    def load(self, packed: bool = False, **options: Any) -> Any:
        """The model in memory, float32 unless `options` of from_pretrained say otherwise.

        packed: take a model that is quantised already as it is; else it is a ModelFileError.
        """
        if self.quantisation and not packed:
            raise ModelFileError(
                f"{self.path} is quantised already; give the folder of its 16-bit original."
            )
        options = {"dtype": torch.float32, **LOCAL, **options}
        with making_a_model, reading("a language model", self.folder) as transformers:
            auto = transformers.AutoModelForCausalLM
            return auto.from_pretrained(str(self.folder), **options).eval()

    def tokenize(self, text: str) -> list[int]:
        """A text as tokens, by llama.cpp for a GGUF, and nothing put before it."""
        kind = TransformersTokenizer if self.is_folder else LlamaTokenizer
        with kind(self.path) as tokenizer:
            tokens: list[int] = tokenizer.encode([text], parse_special=True)[0]
            return tokens

    def tokenizer(self) -> Any:
        """The model's tokenizer in transformers; a GGUF's is written beside its weights, once."""
        if self.info is not None and not (self.folder / TOKENIZER).is_file():
            with tempfile.TemporaryDirectory(dir=self.folder) as staged:
                # A GGUF gives a tokenizer up slowly: 10 s.
                tokenizer = TransformersTokenizer(self.path).tokenizer
                for role in ("bos", "eos", "pad"):  # transformers takes another eos for its own
                    token = getattr(self.info.tokenizer, role)
                    text = None if token is None else tokenizer.convert_ids_to_tokens(token)
                    setattr(tokenizer, f"{role}_token", text)
                tokenizer.save_pretrained(staged)
                files = sorted(Path(staged).iterdir(), key=lambda each: each.name == TOKENIZER)
                for file in files:
                    file.replace(self.folder / file.name)
        return TransformersTokenizer(self.folder).tokenizer

    @property
    def first_token(self) -> int | None:
        """What llama-perplexity puts at the start of each chunk: BOS where the file says so."""
        if self.info is None or not self.info.tokenizer.add_bos:
            return None
        return self.info.tokenizer.bos

    @property
    def n_bytes(self) -> int:
        """Bytes of all its weights in float32."""
        if self.info is not None:
            return 4 * self.info.n_parameters
        return 4 * int(sum(parameter.numel() for parameter in self.skeleton().parameters()))


@contextlib.contextmanager
def reading(what: str, path: Path) -> Iterator[Any]:
    """transformers, quiet; its readers raise whatever a file leads them to, here one sentence."""
    transformers = import_transformers()
    logs = transformers.utils.logging
    level, bars = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield transformers
    except (MemoryError, QwqlabError):
        raise
    except Exception as error:
        said = first_lines(error)
        raise ModelFileError(f"transformers reads no {what[2:]} from {path}: {said}") from error
    finally:
        logs.set_verbosity(level)
        if bars:
            logs.enable_progress_bar()


def check_layers(config: Any, path: Path) -> Any:
    """The configuration, if its number of layers is one that memory has room to list."""
    layers = getattr(config, "num_hidden_layers", 0)
    if not isinstance(layers, int) or not 0 < layers <= MOST_LAYERS:
        raise ModelFileError(f"{path} claims {layers} layers; 1 to {MOST_LAYERS} work.")
    return config


def build_skeleton(config: Any, path: Path) -> Any:
    """The model that a configuration describes, without weights; it belongs to `path`."""
    from accelerate import init_empty_weights

    config = copy.deepcopy(config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with making_a_model, reading("a language model", path) as transformers:
        auto = transformers.AutoModelForCausalLM
        with init_empty_weights(include_buffers=False):
            model = auto.from_config(config, trust_remote_code=False).eval()
        model.tie_weights()  # or a head that shares the embedding would count twice
    return model


def _unpack(path: Path, target: Path) -> None:
    """Write a GGUF as a folder of safetensors in float32, whole or not at all."""
    staged = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with making_a_model, reading("a language model", path) as transformers:
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


def list_linears(model: Any) -> tuple[Linear, ...]:
    """The linear modules of a model of transformers, in the order of its modules.

    Those that bitsandbytes would replace: torch.nn.Linear itself, not what inherits from it.
    """
    return tuple(
        Linear(name, module.out_features, module.in_features)
        for name, module in model.named_modules()
        if type(module) is torch.nn.Linear
    )


def check_room(n_bytes: int, what: str) -> None:
    """SettingError where memory that is free now would not hold so many bytes."""
    if n_bytes > (free := free_memory()):
        raise SettingError(
            f"{what} takes {n_bytes / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free; "
            "close other programs or take a smaller model."
        )


def free_memory() -> int:
    """Bytes of memory that a program could take now."""
    import psutil

    return int(psutil.virtual_memory().available)
