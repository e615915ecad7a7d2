"""What a GGUF file says of itself, checked before llama.cpp sees it.

`inspect` reads the header in Python. `check_loads` lets llama.cpp itself load the file, in a
process of its own, so that a file which crashes llama.cpp cannot kill the notebook.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import catalog, hashes, paths, toolchain
from .errors import ModelFileError
from .ggml_types import FILE_TYPES
from .gguf_cursor import show
from .gguf_reader import Summary, Tensor, read_header

LOAD = """
import os, sys
from llama_cpp import llama_cpp as api
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except ImportError:
    pass
api.llama_backend_init()
params = api.llama_model_default_params()
params.n_gpu_layers = 0
params.use_extra_bufts = False
model = api.llama_model_load_from_file(os.fsencode(sys.argv[1]), params)
sys.exit(0 if model else 3)
"""


@dataclass(frozen=True)
class Tokenizer:
    """The vocabulary in short. model is llama.cpp's name of the algorithm; None is unsaid."""

    model: str
    pre: str
    n_tokens: int
    bos: int | None
    eos: int | None
    pad: int | None
    add_bos: bool | None


@dataclass(frozen=True)
class GGUFInfo:
    """The header of a GGUF file.

    metadata:  every key; arrays, and strings of more than a million bytes, as a Summary.
    tensors:   in the file's order. n_bytes of the file, data_offset where its tensor data starts.
    """

    path: Path
    n_bytes: int
    version: int
    data_offset: int
    metadata: dict[str, Any]
    tensors: tuple[Tensor, ...]

    @property
    def n_tensors(self) -> int:
        return len(self.tensors)

    @property
    def n_parameters(self) -> int:
        """Numbers in all tensors of this file."""
        return sum(tensor.n_elements for tensor in self.tensors)

    @property
    def bytes_by_type(self) -> dict[str, int]:
        """Bytes of tensor data in each type, the largest first."""
        sums: dict[str, int] = {}
        for tensor in self.tensors:
            sums[tensor.type] = sums.get(tensor.type, 0) + tensor.n_bytes
        return dict(sorted(sums.items(), key=lambda item: -item[1]))

    @property
    def bits_per_weight(self) -> float:
        """Bits of tensor data for each parameter."""
        return sum(self.bytes_by_type.values()) * 8 / max(self.n_parameters, 1)

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the architecture, such as "llama" or "qwen2"; empty if unsaid."""
        return self._text("general.architecture") or ""

    @property
    def name(self) -> str:
        return self._text("general.name") or self.path.stem

    @property
    def file_type(self) -> str:
        """The quant that the file claims, such as "Q4_K_M"; bytes_by_type says what is in it."""
        number = self._number("general.file_type")
        return FILE_TYPES.get(number, f"unknown ({number})") if number is not None else "unsaid"

    @property
    def n_parts(self) -> int:
        """Into how many files the model is split; 1 if it is not."""
        return max(self._number("split.count") or 1, 1)

    @property
    def n_ctx_train(self) -> int | None:
        """The context length that the model was trained for, in tokens."""
        return self._number(f"{self.architecture}.context_length")

    @property
    def rms_norm_eps(self) -> float | None:
        value = self.metadata.get(f"{self.architecture}.attention.layer_norm_rms_epsilon")
        return value if isinstance(value, float) else None

    @property
    def rope(self) -> dict[str, Any]:
        """The RoPE settings, such as freq_base, dimension_count, scaling.type, scaling.factor."""
        prefix = f"{self.architecture}.rope."
        return {
            key.removeprefix(prefix): value
            for key, value in self.metadata.items()
            if key.startswith(prefix)
        }

    @property
    def chat_template(self) -> str | None:
        """The chat template, untrusted: render it in a sandbox only."""
        return self._text("tokenizer.chat_template")

    @property
    def tokenizer(self) -> Tokenizer:
        tokens = self.metadata.get("tokenizer.ggml.tokens")
        add_bos = self.metadata.get("tokenizer.ggml.add_bos_token")
        return Tokenizer(
            model=self._text("tokenizer.ggml.model") or "",
            pre=self._text("tokenizer.ggml.pre") or "",
            n_tokens=tokens.length if isinstance(tokens, Summary) else 0,
            bos=self._number("tokenizer.ggml.bos_token_id"),
            eos=self._number("tokenizer.ggml.eos_token_id"),
            pad=self._number("tokenizer.ggml.padding_token_id"),
            add_bos=add_bos if isinstance(add_bos, bool) else None,
        )

    def _text(self, key: str) -> str | None:
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def _number(self, key: str) -> int | None:
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None


def inspect(path: str | os.PathLike[str]) -> GGUFInfo:
    """Read and check the header of a GGUF file; its tensor data is not read.

    ModelFileError, in one sentence: not a file, not a GGUF, cut short, counts or lengths that the
    file cannot hold, nested arrays, doubled names, shapes, types, offsets or an alignment that
    llama.cpp would refuse. What it passes, llama.cpp may still refuse: see `check_loads`.
    """
    path = Path(path)
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "is not a file"
            raise ModelFileError(f"{path} {what}; give the path of a .gguf file.")
        with path.open("rb") as file:
            header = read_header(file, path)
            n_bytes = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror or error}.") from error
    return GGUFInfo(
        path, n_bytes, header.version, header.n_bytes, header.metadata, tuple(header.tensors)
    )


def check_loads(path: str | os.PathLike[str], timeout: float = 900.0) -> None:
    """Return if llama.cpp can load the file; ModelFileError with its own reason if not.

    Loads vocabulary and tensors on the CPU, without a context, in a child process. A yes is
    remembered for as long as the file and the library stay as they are; a file whose hash the
    catalog fixes, and which `fetch` has checked, needs no child. ToolchainError if there is no
    llama.cpp to ask. timeout in seconds.
    """
    path = Path(path)
    if hashes.known_sha256(path) in catalog.fixed_hashes():
        return
    inspect(path)
    library = toolchain.library_dir()
    proof = _describe_state(path, library)
    memory = paths.models_dir() / "loads.json"
    if hashes.read_json(memory).get(str(path.resolve())) == proof:
        return
    environment = {
        **os.environ,
        "LLAMA_CPP_LIB_PATH": str(library),
        "CUDA_VISIBLE_DEVICES": "-1",
        "GGML_NO_BACKTRACE": "1",
    }
    try:
        done = subprocess.run(
            [sys.executable, "-c", LOAD, str(path)],
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
        hashes.update_json(memory, str(path.resolve()), proof)
        return
    log = done.stderr.decode("utf-8", errors="replace")
    reason = _find_reason(log)
    if done.returncode < 0:
        raise ModelFileError(
            f"llama.cpp {toolchain.explain_exit(done.returncode)} while it loaded {path} "
            f"({reason}); take another file."
        )
    if done.returncode != 3:
        raise ModelFileError(f"{path} could not be tried in llama.cpp: {reason}.")
    raise ModelFileError(f"{path} {_explain(reason)}.")


def _describe_state(path: Path, library: Path) -> list[int]:
    stats = [path.stat(), *(file.stat() for file in sorted(library.glob("libllama.*")))]
    return [number for stat in stats for number in (stat.st_size, stat.st_mtime_ns)]


def _find_reason(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower() or "assert" in line.lower()]
    specific = [line for line in errors if "error loading model" in line] or errors or lines[-1:]
    if not specific:
        return "it gave no reason"
    reason = specific[0].split("error loading model: ")[-1]
    return show(re.sub(r"^\S*/(?=[\w.-]+:\d+: )", "", reason), limit=200)


def _explain(reason: str) -> str:
    unknown = re.search(r"unknown model architecture: '?(.*?)'?$", reason)
    if unknown:
        return (
            f"is of an architecture that llama.cpp does not know: '{unknown[1]}'; take another "
            "model or a newer llama.cpp"
        )
    return f"cannot be loaded by llama.cpp: {reason}; fetch it again or take another file"
