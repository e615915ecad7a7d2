"""The doctor's look at model files: whole, and byte for byte what the catalog or the lab states."""

from __future__ import annotations

from pathlib import Path

from .. import catalog, gguf_file, hashes, hub_fetch, paths, requantize
from ..entries import Entry, Repository, Vocabulary, show_size
from ..errors import QwqlabError
from ..hub import SHA256
from ..preflight import Check
from .doctor_ask import ask_python

# A model's first words, in the way in which the notebooks ask for them.
ANSWER_PROBE = """
import json
import sys
from qwqlab.engine import Engine
prompt = "A prompt that is long enough to be read as a batch of tokens. " * 4
with Engine(sys.argv[1]) as engine:
    run = engine.generate(prompt, n_predict=8)
print(json.dumps({"n_tokens": len(run.tokens), "seconds": run.seconds}))
"""

HASHED_AT_ONCE = 1_000_000_000
"""Bytes of a file that is hashed for the doctor, in about 2 s; larger ones only from memory."""


def check_files() -> list[Check]:
    """The two files that everything rests on, then all others: one check, or one for each fault."""
    others = [*_list_copies(), *_list_fetched()]
    faults = [fault for path, stated, remedy in others if (fault := _judge(path, stated, remedy))]
    summary = Check("Other model files", True, _count(others) if others else "none, none is needed")
    return [check_model(), check_vocabulary(), *(faults or [summary])]


def check_model() -> Check:
    """Whether the embedded model's file is there, byte for byte the one in the catalog."""
    return _check_file("Embedded model", catalog.EMBEDDED)


def check_vocabulary() -> Check:
    """Whether the ranks of QwQ-32B's vocabulary are there, byte for byte."""
    return _check_file("QwQ-32B's vocabulary", catalog.QWQ_RANKS)


def check_answer() -> Check:
    """Whether the embedded model answers with the llama.cpp of this machine."""
    name, remedy = "An answer", "run `make clean`, then `make setup`, which compiles it anew"
    path = paths.models_dir() / catalog.EMBEDDED.filename
    if not path.is_file():
        return Check(name, False, f"no {path}", f"run `qwqlab fetch {catalog.EMBEDDED.name}`")
    try:
        found = ask_python(["-c", ANSWER_PROBE, str(path)])
    except QwqlabError as error:
        return Check(name, False, f"the embedded model gives none ({error})", remedy)
    speed = f"{found['n_tokens']} tokens in {found['seconds']:.1f} s"
    return Check(name, True, f"the embedded model wrote {speed}")


def _check_file(name: str, entry: Entry | Vocabulary) -> Check:
    path = paths.models_dir() / entry.filename
    remedy = f"run `qwqlab fetch {entry.name}`"
    if not path.exists():
        return Check(name, False, f"no {path}", remedy)
    if not path.is_file():
        return Check(name, False, f"{path} is not a file", f"move it away, then {remedy}")
    size = path.stat().st_size
    if size < entry.n_bytes:
        lack = f"{path} is cut short, {size} of {entry.n_bytes} bytes"
        return Check(name, False, lack, f"delete it, then {remedy}")
    try:
        found = hashes.sha256_of(path)
    except QwqlabError as error:
        return Check(name, False, str(error), f"delete it, then {remedy}")
    if found != entry.sha256:
        wrong = f"{path} has sha256 {found}, not {entry.sha256}"
        return Check(name, False, wrong, f"delete it, then {remedy}")
    return Check(name, True, f"{path.name}, {show_size(entry.n_bytes)}, sha256 as catalogued")


def _list_copies() -> list[tuple[Path, tuple[str, ...], str]]:
    """Each other GGUF in the models folder, the hashes that it may have, and the remedy."""
    made = "delete it: the lab makes it again when it is needed"
    own = "delete it, and bring it again with `qwqlab import`"
    return [
        (path, stated, made if stated else own)
        for path in sorted(paths.models_dir().glob("*.gguf"))
        if path.name != catalog.EMBEDDED.filename
        for stated in [requantize.recorded_hashes(path.name)]
    ]


def _list_fetched() -> list[tuple[Path, tuple[str, ...], str]]:
    """Each weight file of the catalog's repositories in the hub's cache, in the same form.

    The name of a blob there is the hash that the hub stated for it.
    """
    files: dict[Path, tuple[Path, tuple[str, ...], str]] = {}
    for entry in catalog.ENTRIES:
        found = isinstance(entry.source, Repository) and hub_fetch.find_fetched(entry.source)
        for path in found.paths if found else ():
            blob = path.resolve()
            if SHA256.fullmatch(blob.name):
                files[blob] = path, (blob.name,), f"run `qwqlab fetch {entry.name}`"
    return list(files.values())


def _judge(path: Path, stated: tuple[str, ...], remedy: str) -> Check | None:
    name = f"Model file {path.name}"
    try:
        if path.suffix == ".gguf":
            gguf_file.inspect(path)
        if stated and (found := _hash(path)) and found not in stated:
            return Check(name, False, f"{path} has sha256 {found}, not {stated[0]}", remedy)
    except QwqlabError as error:
        return Check(name, False, str(error), remedy)
    return None


def _hash(path: Path) -> str | None:
    blob = path.resolve()
    small = blob.stat().st_size <= HASHED_AT_ONCE
    return hashes.sha256_of(blob) if small else hashes.known_sha256(blob)


def _count(files: list[tuple[Path, tuple[str, ...], str]]) -> str:
    hashed = [path for path, stated, _ in files if stated and _hash(path)]
    return f"{len(files)} whole, {len(hashed)} of them with the sha256 that was stated for them"
