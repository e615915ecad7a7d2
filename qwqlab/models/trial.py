"""Try a file in llama.cpp, in a process of its own.

A malformed file has crashed llama.cpp before. In a child process such a crash is an answer; in the
kernel it would be the end of the notebook. The child runs this module: see `main`.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from .. import paths
from ..errors import ModelFileError, QwqlabError, explain_exit
from ..files import known_sha256, read_json, update_json
from ..llamacpp import STAND_IN, Loading, library_dir, module_command
from .catalog import EMBEDDED
from .gguf import GGUFInfo, inspect, list_parts
from .gguf_header import printable

if TYPE_CHECKING:
    from ..llamacpp import Model  # loads the library, which the parent leaves to the child

TEXT_SECONDS, TEXT_MEMORY = 30, 1 << 30  # for reading letters: it takes a second
CHILD = module_command("qwqlab.models.trial")


def check_loads(
    path: str | os.PathLike[str],
    override_kv: Sequence[str] = (),
    lora: Sequence[str] = (),
) -> None:
    """Raise ModelFileError, with llama.cpp's own reason, if it can't use the file.

    A child process loads the file with these overrides and adapters on the CPU, reads many letters
    with its vocabulary, shows every token and decodes a text, within 15 minutes. A success is
    remembered for as long as the files and the library stay as they are. The embedded model, whose
    hash is known, needs no trial. Raise ToolchainError if there is no llama.cpp.
    """
    _try(Path(path), "run", override_kv, lora, 900.0)


def check_tokenizes(path: str | os.PathLike[str]) -> None:
    """Raise ModelFileError if llama.cpp can't load the vocabulary or read many letters with it.

    A file without a vocabulary is refused; one without tensors is not.
    """
    _try(Path(path), "vocabulary", (), (), 120.0)


def _try(
    path: Path, what: str, override_kv: Sequence[str], lora: Sequence[str], timeout: float
) -> None:
    if not override_kv and not lora and known_sha256(path) == EMBEDDED.sha256:
        return
    info = inspect(path)
    for adapter in map(Path, lora):
        if not inspect(adapter).tensors:
            raise ModelFileError(f"{adapter} holds no tensors, and so no adapter; give another.")
    proof = _describe_state(info, lora)
    memory = paths.models_dir() / "loads.json"
    files = [str(Path(each).resolve()) for each in [str(path), *lora]]
    name = " ".join([*files, what, *override_kv])
    if read_json(memory).get(name) == proof:
        return
    job = json.dumps([what, str(path), list(override_kv), list(lora)])
    environment = {name: value for name, value in os.environ.items() if name != STAND_IN}
    try:
        done = subprocess.run(
            [*CHILD, job],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**environment, "CUDA_VISIBLE_DEVICES": "-1", "GGML_NO_BACKTRACE": "1"},
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelFileError(
            f"llama.cpp did not load {path} within {timeout:.0f} s; take another file."
        ) from error
    if done.returncode == 0:
        update_json(memory, name, proof)
        return
    reason = _find_reason(done.stderr.decode("utf-8", errors="replace"))
    extras = [*override_kv, *lora]
    remedy = f"leave out {', '.join(extras)}" if extras else "take another file"
    if done.returncode == -signal.SIGXCPU:
        raise ModelFileError(
            f"llama.cpp does not come to an end with a text and the vocabulary of {path}; {remedy}."
        )
    if done.returncode < 0:
        raise ModelFileError(
            f"llama.cpp {explain_exit(done.returncode)} while it tried {path} ({reason}); {remedy}."
        )
    raise ModelFileError(f"{path} cannot be loaded by llama.cpp: {reason}; {remedy}.")


def _describe_state(info: GGUFInfo, lora: Sequence[str]) -> list[int]:
    """Return size and time of every file on which the answer depends."""
    library = sorted(library_dir().glob("libllama.*"))
    stats = [file.stat() for file in (*list_parts(info), *map(Path, lora), *library)]
    return [number for stat in stats for number in (stat.st_size, stat.st_mtime_ns)]


def _find_reason(log: str) -> str:
    """Return the line of llama.cpp's log that gives the reason for a refusal."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower() or "assert" in line.lower()]
    specific = [line for line in errors if "error loading model" in line] or errors or lines[-1:]
    if not specific:
        return "it gave no reason"
    reason = specific[0].split("error loading model: ")[-1]
    return printable(re.sub(r"^\S*/(?=[\w.-]+:\d+: )", "", reason), limit=200)


def main(job: str) -> None:
    """Try a file in this process, which may crash of it; exit with 1 if llama.cpp refuses it."""
    what, path, overrides, adapters = json.loads(job)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash leaves no core file
    from ..llamacpp import C, Model

    C.llama_log_set(C.llama_log_callback(0), None)  # llama.cpp's own: to stderr
    loading = Loading(device="none", override_kv=tuple(overrides), lora=tuple(adapters))
    try:
        with Model(path, loading, vocab_only=what == "vocabulary") as model:
            with _limits():
                tokens = _read_letters(model)
            if what == "run":
                _decode(tokens, model, loading)
    except QwqlabError as error:
        print(error, file=sys.stderr)
        sys.exit(1)


@contextmanager
def _limits() -> Iterator[None]:
    """End this process if it takes TEXT_SECONDS of a processor, or on Linux TEXT_MEMORY more.

    With some vocabularies llama.cpp reads on for ever, and notes a token at each turn.
    """
    limits = {resource.RLIMIT_CPU: int(time.process_time()) + TEXT_SECONDS}
    if (memory := Path("/proc/self/statm")).exists():
        pages = int(memory.read_text("ascii").split()[0])
        limits[resource.RLIMIT_AS] = pages * resource.getpagesize() + TEXT_MEMORY
    before = {kind: resource.getrlimit(kind) for kind in limits}
    for kind, most in limits.items():
        given = [most, *(limit for limit in before[kind] if limit != resource.RLIM_INFINITY)]
        resource.setrlimit(kind, (min(given), before[kind][1]))
    yield
    for kind, both in before.items():
        resource.setrlimit(kind, both)


def _read_letters(model: Model) -> list[int]:
    """Use the vocabulary in every way in which a run does; return the tokens of a short text.

    Tokenize every character of one and two bytes, and every byte of longer ones; show every token.
    """
    from ..llamacpp import C

    if C.llama_vocab_type(model.vocab) == C.LLAMA_VOCAB_TYPE_NONE or not model.n_vocab:
        raise ModelFileError("error: it holds no vocabulary, which a prompt needs")
    longer = (range(0x800, 0xD800, 64), range(0xE000, 0x10000, 64), range(0x10000, 0x110000, 4096))
    codes = [*range(0x800), *chain(*longer)]
    text = " ".join(map(chr, codes)) + "".join(map(chr, codes))
    for special in (False, True):
        model.tokenize_all([text], parse_special=special)
    for token in range(model.n_vocab):
        model.show(token)
        model.piece(token)
        model.is_end(token)
    return model.tokenize("A text.") or [0]


def _decode(tokens: list[int], model: Model, loading: Loading) -> None:
    import numpy as np

    from ..llamacpp import Context

    with Context(model, loading, 1, 256) as context:
        if not np.isfinite(context.prefill(tokens, 0)).all():
            raise ModelFileError("error: its logits are not numbers")


if __name__ == "__main__":
    main(sys.argv[1])
