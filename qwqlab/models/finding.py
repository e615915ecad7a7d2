"""GGUF files that are on this machine already, and which of the catalog's models each one is.

What brought a file does not matter: `qwqlab import`, the article's own download, llama.cpp or any
other program that uses the hub's cache. Its header decides, not its name. Nothing is hashed and no
network asked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from glob import escape
from pathlib import Path
from typing import Any

from .. import paths
from ..errors import ModelFileError
from ..files import read_json, update_json
from .catalog import ENTRIES, Entry, Repository
from .gguf import SPLIT, GGUFInfo, inspect, list_parts

NEARLY = 1.35
"""How many times larger or smaller than catalogued a file may be, to be looked into at all."""


def find_cache() -> Path:
    """Return the hub's cache on this machine, as HF_HUB_CACHE or HF_HOME set it."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def find_folder(repository: Repository) -> Path:
    """Return the repository's folder in the cache."""
    name = "--".join([f"{repository.kind}s", *repository.repo_id.split("/")])
    return find_cache() / name


def list_files() -> list[Path]:
    """Return the GGUF files that may be a model: of one in parts the first, of no file twice.

    They are those in models_dir(); in the article's download folder, `unsloth-QwQ-32B-GGUF`, and
    its like for other repositories, where that lies in the current folder, in the checkout, beside
    it, or at home; and in the hub's cache.
    """
    found: dict[Path, Path] = {}
    for path in _list_all():
        split = SPLIT.fullmatch(path.name)
        first = split is None or "-00001-of-" in path.name
        if first and os.access(path, os.R_OK) and path.is_file():
            found.setdefault(path.resolve(), path)
    return list(found.values())


def _list_all() -> Iterator[Path]:
    yield from sorted(paths.models_dir().glob("*.gguf"))
    names = {
        entry.source.repo_id.replace("/", "-"): None
        for entry in ENTRIES
        if isinstance(entry.source, Repository)
    }
    for place in (Path.cwd(), paths.CHECKOUT, paths.CHECKOUT.parent, paths.from_user("~")):
        for name in names:
            for pattern in ("*.gguf", "*/*.gguf"):
                yield from sorted((place / name).glob(pattern))
    for pattern in ("*.gguf", "*/*.gguf"):
        yield from sorted(find_cache().glob(f"models--*/snapshots/*/{pattern}"))


def find_file(entry: Entry, files: list[Path] | None = None) -> Path | None:
    """Return the file of a GGUF in the catalog, the first if there are several, or None.

    files: those to look at, from `list_files`. A file that can't be read is passed over.
    """
    for path in list_files() if files is None else files:
        size = sum(part.stat().st_size for part in path.parent.glob(_name_parts(path)))
        if entry.n_bytes / NEARLY < size < entry.n_bytes * NEARLY:
            header = _read_identity(path)
            if header and _is_model(header, entry):
                return path
    return None


def explain_namesakes(entry: Entry) -> str:
    """Return why files with the name of a GGUF in the catalog are not taken for it, or ""."""
    found = []
    for path in list_files():
        if path.name.casefold() == entry.filename.casefold():
            try:
                list_parts(inspect(path))
                found.append(f"{path} is there, but its header or size is another model's.")
            except ModelFileError as error:
                found.append(str(error))
    return " ".join(found)


def _name_parts(path: Path) -> str:
    """Return the pattern of the files of a model, given the first."""
    name = escape(path.name)
    return name.replace("-00001-of-", "-?????-of-") if SPLIT.fullmatch(path.name) else name


def _is_model(header: dict[str, Any], entry: Entry) -> bool:
    shape = entry.architecture
    wanted = [shape.name, shape.n_layers, shape.n_embd, shape.n_kv_heads, shape.head_dim]
    # Qwen's own files of its Coder say that they were made from its AWQ upload.
    name = re.sub(r"(?:awq|gguf)+$", "", _plain(header["name"]))
    return header["shape"] == wanted and (name, header["file_type"]) == (
        _plain(entry.model),
        entry.quant,
    )


def _plain(name: str) -> str:
    """Return a name without what spellings differ in.

    >>> _plain("QwQ 32B") == _plain("QwQ-32B")
    True
    """
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def _read_identity(path: Path) -> dict[str, Any] | None:
    """Return what a header says of its model, remembered until the file changes.

    The header of a vocabulary of 150,000 tokens takes some tenths of a second to read.
    """
    memory = paths.models_dir() / "headers.json"
    stat = path.stat()
    stamp, name = [stat.st_size, stat.st_mtime_ns], str(path.resolve())
    known = read_json(memory).get(name)
    if isinstance(known, dict) and known.get("stamp") == stamp:
        return known["says"]  # type: ignore[no-any-return]
    try:
        info = inspect(path)
        list_parts(info)
        says = _summarise(info)
    except ModelFileError:
        says = None
    update_json(memory, name, {"stamp": stamp, "says": says})
    return says


def _summarise(info: GGUFInfo) -> dict[str, Any]:
    said = {
        key.removeprefix(f"{info.architecture}."): value
        for key, value in info.metadata.items()
        if isinstance(value, int)
    }
    layers, width, heads, kv_heads, head = (
        said.get(key)
        for key in (
            "block_count",
            "embedding_length",
            "attention.head_count",
            "attention.head_count_kv",
            "attention.key_length",
        )
    )
    head = head or (width // heads if width and heads else None)
    shape = [info.architecture, layers, width, kv_heads, head]
    return {"name": info.name, "shape": shape, "file_type": info.file_type}
