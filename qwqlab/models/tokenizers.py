"""Turn texts into tokens with llama.cpp or with transformers, by the same methods."""

from __future__ import annotations

import codecs
import json
import os
import re
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import files, paths
from ..errors import FetchError, ModelFileError, QwqlabError, SettingError, first_lines
from ..llamacpp import Closing, Loading, Model
from . import local, qwq, trial
from .gguf import GGUFInfo, inspect
from .gguf_header import printable

ENGINES = ("llama.cpp", "transformers")
# A folder that transformers can read has one of these.
_TELLING = ("config.json", "tokenizer.json", "tokenizer_config.json")

_switching = threading.Lock()
_before: list[bool] = []  # whether huggingface_hub was offline, at each entry into `offline`


class LlamaTokenizer(Closing):
    """The vocabulary of a GGUF in llama.cpp. Close it, or use it in a `with` block.

    name is "qwq-32b", a name that `model_path` knows, or a file. The header is checked and the
    vocabulary tried in another process before this one loads it. Raise ModelFileError for a file
    that can't be used, FetchError for one that is not on this machine.
    """

    def __init__(self, name: str | os.PathLike[str]) -> None:
        self.path = _find_gguf(name)
        self.info: GGUFInfo = inspect(self.path)
        trial.check_tokenizes(self.path)
        self._model = Model(self.path, Loading(device="none"), vocab_only=True)

    def encode(self, texts: Iterable[str], parse_special: bool = True) -> list[list[int]]:
        """Return the token ids of each text, with nothing before or after them.

        With `parse_special`, `<|im_end|>` and its like in a text are one token each; without, they
        are letters like any others. Raise SettingError for one text that is in no list.
        """
        texts = _check_texts(texts)
        return self._model.tokenize_all(texts, add_special=False, parse_special=parse_special)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Return each token as a reader sees it."""
        return [self._model.show(token) for token in ids]

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """Every token at which llama.cpp ends a generation: some it knows by their texts alone."""
        return self._model.end_tokens

    @property
    def n_tokens(self) -> int:
        """The number of tokens in the vocabulary."""
        return self._model.n_vocab

    @property
    def special_tokens(self) -> dict[int, bool]:
        """Tokens that are found in a text before all others; True if only with parse_special."""
        return self._model.special_tokens

    def close(self) -> None:
        """Free the vocabulary."""
        if model := self.__dict__.get("_model"):
            model.close()


class TransformersTokenizer(Closing):
    """A tokenizer of transformers: an object of that library, a folder, a GGUF, or "qwq-32b".

    Nothing comes from a network, and no code in the folder runs. Raise ModelFileError if
    transformers can't read a tokenizer there; from a GGUF it reads one only with torch installed.
    """

    def __init__(self, source: Any) -> None:
        is_name = isinstance(source, (str, os.PathLike))
        self.tokenizer = _load_transformers(source) if is_name else source

    def encode(self, texts: Iterable[str], parse_special: bool = True) -> list[list[int]]:
        """Return what LlamaTokenizer.encode does; transformers calls it split_special_tokens."""
        texts = list(_check_texts(texts))
        if not texts:
            return []
        found = self.tokenizer(
            texts, add_special_tokens=False, split_special_tokens=not parse_special, verbose=False
        )
        return [list(ids) for ids in found["input_ids"]]

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Return each token as a reader sees it."""
        decode = self.tokenizer.decode
        return [decode([token], clean_up_tokenization_spaces=False) for token in ids]

    def close(self) -> None:
        """Do nothing: there is nothing to free."""


def open_tokenizer(
    name: str | os.PathLike[str], engine: str = "llama.cpp"
) -> LlamaTokenizer | TransformersTokenizer:
    """Return the tokenizer of that name in that engine. Raise SettingError for another engine.

    >>> with open_tokenizer("qwq-32b") as tokenizer:
    ...     tokenizer.encode(["<think>\\n"])
    [[151667, 198]]
    """
    if engine not in ENGINES:
        raise SettingError(f"engine={engine!r} is not one of {', '.join(ENGINES)}")
    return LlamaTokenizer(name) if engine == "llama.cpp" else TransformersTokenizer(name)


def _check_texts(texts: Iterable[str]) -> Iterable[str]:
    if isinstance(texts, str):  # a text is a sequence too, of letters
        raise SettingError(f"{printable(texts, 30)!r} is one text; give a list of texts")
    return texts


def _is_qwq(name: str | os.PathLike[str]) -> bool:
    return os.fspath(name).strip().casefold() == qwq.QWQ_NAME


def _find_gguf(name: str | os.PathLike[str]) -> Path:
    if _is_qwq(name):
        return qwq.build_qwq() / "vocab.gguf"
    try:
        return local.model_path(name)
    except FetchError as error:
        said = str(error).removesuffix(".")
        raise FetchError(f"{said}; a tokenizer that is at hand is {qwq.QWQ_NAME}.") from None


def _load_transformers(name: str | os.PathLike[str]) -> Any:
    folder = qwq.build_qwq() if _is_qwq(name) else paths.from_user(name)
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    if not folder.is_dir():
        path = _find_gguf(name)
        inspect(path)
        folder, options["gguf_file"] = path.parent, path.name
    elif not any((folder / file).exists() for file in _TELLING):
        raise ModelFileError(
            f"{folder} holds no model: it has none of {', '.join(_TELLING)}; give a folder with "
            "these, or a .gguf file."
        )
    auto = import_transformers().AutoTokenizer
    try:
        with offline(), readable(folder) as plain:
            return auto.from_pretrained(str(plain), **options)
    except QwqlabError:
        raise
    except ModuleNotFoundError as error:
        raise ModelFileError(
            f"transformers reads the tokenizer of {name} only with {error.name}, which is not "
            "installed: `pip install qwqlab[train]`, or give a folder with a tokenizer.json."
        ) from error
    except Exception as error:  # its readers raise whatever a file leads them to
        said = first_lines(error)
        raise ModelFileError(f"transformers reads no tokenizer from {name}: {said}") from error


def import_transformers() -> Any:
    """Return transformers, imported without its advice to install PyTorch."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    import transformers

    return transformers


@contextmanager
def offline() -> Iterator[None]:
    """Let huggingface_hub ask no hub within the block.

    Where a file leaves out what its architecture takes from elsewhere, transformers would.
    """
    from huggingface_hub import constants

    with _switching:
        _before.append(constants.HF_HUB_OFFLINE)
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        with _switching:  # of several threads the last one to leave restores what the first found
            constants.HF_HUB_OFFLINE = len(_before) > 1 or _before[0]
            _before.pop()


@contextmanager
def readable(path: Path) -> Iterator[Path]:
    """Yield a file or folder as transformers can read it: for as long as the block runs.

    That is the path itself, as a rule. If a text in it begins with a byte order mark, or its
    tokenizer.json leaves out flags of added tokens, it is links to the files and mended copies of
    those texts. Raise ModelFileError for a text in UTF-16.
    """
    found = [path] if path.is_file() else sorted(path.iterdir())
    mended = {file: text for file in found if (text := _mend(file)) is not None}
    if not mended:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        for file in found:
            target = Path(folder, file.name)
            if file in mended:
                target.write_text(mended[file], encoding="utf-8")
            else:
                target.symlink_to(file.resolve())
        yield Path(folder, path.name) if path.is_file() else Path(folder)


def _mend(path: Path) -> str | None:
    """Return what transformers should read instead of a file; None if it reads that as it is."""
    if path.suffix not in (".json", ".jinja") or not path.is_file():
        return None
    with path.open("rb") as file:
        raw = file.read(-1 if path.name == "tokenizer.json" else 3)
    if path.name == "tokenizer.json":
        n_tokens = len(re.findall(rb'"special"\s*:\s*(?:true|false)', raw))
        if n_tokens > raw.count(b'"single_word"'):
            return _add_flags(path)
    marked = raw.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return files.read_text(path, ModelFileError) if marked else None


def _add_flags(path: Path) -> str:
    """Return a tokenizer.json in which each added token has all of its flags."""
    values = files.parse_json(path, ModelFileError)
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    if isinstance(values, dict) and isinstance(values.get("added_tokens"), list):
        values["added_tokens"] = [
            {**flags, **token} if isinstance(token, dict) else token
            for token in values["added_tokens"]
        ]
    return json.dumps(values)
