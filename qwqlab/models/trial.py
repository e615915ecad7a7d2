"""Whether llama.cpp can use a file, found out in a process of its own.

A malformed file has crashed llama.cpp before. In a child such a crash is an answer; in the kernel
it would be the end of the notebook.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .. import catalog, hashes, paths, toolchain
from ..errors import ModelFileError
from ..exits import explain_exit
from .gguf_cursor import show
from .gguf_file import GGUFInfo, inspect, list_parts

REFUSED = 3
START = """
import json
import sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except ImportError:
    pass
from qwqlab.errors import QwqlabError
from qwqlab.loading import Loading
from qwqlab.native import C, Model
C.llama_log_set(C.llama_log_callback(0), None)  # llama.cpp's own: to stderr
overrides, adapters = json.loads(sys.argv[2])
loading = Loading(n_gpu_layers=0, override_kv=tuple(overrides), lora=tuple(adapters))
"""
LOAD = f"""
{START}
import numpy as np
from qwqlab.context import Context
try:
    with Model(sys.argv[1], loading) as model, Context(model, loading, 1, 256) as context:
        sound = np.isfinite(context.prefill([0], 0)).all()
except QwqlabError as error:
    print(error, file=sys.stderr)
    sys.exit({REFUSED})
if not sound:
    print("error: its logits are not numbers", file=sys.stderr)
    sys.exit({REFUSED})
"""
# Every character of one and two bytes, and every byte that begins or goes on one of more.
TOKENIZE = f"""
{START}
codes = [*range(0x800), *range(0x800, 0xD800, 64), *range(0x10000, 0x110000, 4096)]
text = " ".join(map(chr, codes)) + "".join(map(chr, codes))
try:
    with Model(sys.argv[1], loading, vocab_only=True) as model:
        if not model.n_vocab:
            raise QwqlabError("error: it holds no vocabulary")
        for special in (False, True):
            model.tokenize_all([text], parse_special=special)
        for token in range(model.n_vocab):
            model.show(token)
except QwqlabError as error:
    print(error, file=sys.stderr)
    sys.exit({REFUSED})
"""


def check_loads(
    path: str | os.PathLike[str],
    override_kv: Sequence[str] = (),
    lora: Sequence[str] = (),
    timeout: float = 900.0,
) -> None:
    """Return if llama.cpp can use the file; ModelFileError with its own reason if not.

    Loads the file with these overrides and adapters on the CPU and decodes one token, in a child
    process. A yes is remembered for as long as the files and the library stay as they are; a file
    whose hash the catalog fixes, and which `fetch` has checked, needs no child where it stands as
    it is. ToolchainError if there is no llama.cpp to ask. timeout in seconds.
    """
    _try(Path(path), LOAD, "", override_kv, lora, timeout)


def check_tokenizes(path: str | os.PathLike[str], timeout: float = 120.0) -> None:
    """As check_loads, of the vocabulary alone: llama.cpp loads it and reads many letters with it.

    A file without a vocabulary is refused; one without tensors is not.
    """
    _try(Path(path), TOKENIZE, "vocabulary", (), (), timeout)


def _try(
    path: Path,
    script: str,
    what: str,
    override_kv: Sequence[str],
    lora: Sequence[str],
    timeout: float,
) -> None:
    if not override_kv and not lora and hashes.known_sha256(path) in catalog.fixed_hashes():
        return
    info = inspect(path)
    for adapter in map(Path, lora):
        if not inspect(adapter).tensors:
            raise ModelFileError(f"{adapter} holds no tensors, and so no adapter; give another.")
    library = toolchain.library_dir()
    proof = _describe_state(info, lora, library)
    key = [str(Path(each).resolve()) for each in [str(path), *lora]]
    memory, name = paths.models_dir() / "loads.json", " ".join([*key, what, *override_kv]).strip()
    if hashes.read_json(memory).get(name) == proof:
        return
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "-1",
        "GGML_NO_BACKTRACE": "1",
    }
    try:
        done = subprocess.run(
            [sys.executable, "-c", script, str(path), json.dumps([list(override_kv), list(lora)])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelFileError(
            f"llama.cpp did not load {path} within {timeout:.0f} s; take another file."
        ) from error
    if done.returncode == 0:
        hashes.update_json(memory, name, proof)
        return
    log = done.stderr.decode("utf-8", errors="replace")
    reason = _find_reason(log)
    extras = [*override_kv, *lora]
    remedy = f"leave out {', '.join(extras)}" if extras else "take another file"
    if done.returncode < 0:
        raise ModelFileError(
            f"llama.cpp {explain_exit(done.returncode)} while it loaded {path} "
            f"({reason}); {remedy}."
        )
    if done.returncode != REFUSED:
        raise ModelFileError(f"{path} could not be tried in llama.cpp: {reason}.")
    raise ModelFileError(f"{path} {_explain(reason, remedy)}.")


def _describe_state(info: GGUFInfo, lora: Sequence[str], library: Path) -> list[int]:
    files = [*list_parts(info), *map(Path, lora), *sorted(library.glob("libllama.*"))]
    stats = [file.stat() for file in files]
    return [number for stat in stats for number in (stat.st_size, stat.st_mtime_ns)]


def _find_reason(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower() or "assert" in line.lower()]
    specific = [line for line in errors if "error loading model" in line] or errors or lines[-1:]
    if not specific:
        return "it gave no reason"
    reason = specific[0].split("error loading model: ")[-1]
    return show(re.sub(r"^\S*/(?=[\w.-]+:\d+: )", "", reason), limit=200)


def _explain(reason: str, remedy: str) -> str:
    unknown = re.search(r"unknown model architecture: '?(.*?)'?$", reason)
    if unknown:
        return (
            f"is of an architecture that llama.cpp does not know: '{unknown[1]}'; take another "
            "model or a newer llama.cpp"
        )
    return f"cannot be loaded by llama.cpp: {reason}; {remedy}"
