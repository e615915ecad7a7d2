"""How a model is loaded and run: everything that can change its logits or its speed.

Names, flags and defaults are llama.cpp's, so that a Loading means the same to the bindings and to
the command-line tools.
"""

from __future__ import annotations

import numbers
import os
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..errors import SettingError

INT_MAX = 2**31 - 1
FLOAT_MAX = 3.4e38
FLASH_ATTN = ("auto", "on", "off")
ROPE_SCALING = ("", "none", "linear", "yarn")
THREADS = "LLAMA_ARG_THREADS"  # the variable from which llama.cpp's own programs take them
CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
_OVERRIDE = re.compile(r"(?P<key>[^=]{1,127})=(?P<type>int|float|bool|str):(?P<value>.*)", re.S)

# Where the range of a number is not 0 to what its type in llama.cpp holds.
_RANGES: dict[str, tuple[float, float]] = {
    "n_threads": (0, 512),
    "n_threads_batch": (0, 512),
    "n_batch": (1, INT_MAX),
    "n_ubatch": (1, INT_MAX),
    "n_gpu_layers": (-2, INT_MAX),
    "yarn_ext_factor": (-FLOAT_MAX, FLOAT_MAX),
    "yarn_attn_factor": (-FLOAT_MAX, FLOAT_MAX),
    "yarn_beta_fast": (-FLOAT_MAX, FLOAT_MAX),
    "yarn_beta_slow": (-FLOAT_MAX, FLOAT_MAX),
}

LOADING_FLAGS: dict[str, tuple[str, ...]] = {
    "n_threads": ("-t", "--threads"),
    "n_threads_batch": ("-tb", "--threads-batch"),
    "n_ctx": ("-c", "--ctx-size"),
    "n_batch": ("-b", "--batch-size"),
    "n_ubatch": ("-ub", "--ubatch-size"),
    "n_gpu_layers": ("-ngl", "--gpu-layers", "--n-gpu-layers"),
    "flash_attn": ("-fa", "--flash-attn"),
    "cache_type_k": ("-ctk", "--cache-type-k"),
    "cache_type_v": ("-ctv", "--cache-type-v"),
    "rope_scaling": ("--rope-scaling",),
    "rope_scale": ("--rope-scale",),
    "rope_freq_base": ("--rope-freq-base",),
    "rope_freq_scale": ("--rope-freq-scale",),
    "yarn_orig_ctx": ("--yarn-orig-ctx",),
    "yarn_ext_factor": ("--yarn-ext-factor",),
    "yarn_attn_factor": ("--yarn-attn-factor",),
    "yarn_beta_fast": ("--yarn-beta-fast",),
    "yarn_beta_slow": ("--yarn-beta-slow",),
    "override_kv": ("--override-kv",),
    "lora": ("--lora",),
}


@dataclass(frozen=True)
class Loading:
    """How to load a model. Zero threads or context means llama.cpp's own choice.

    n_ctx counts the tokens of one sequence. override_kv holds llama.cpp's KEY=TYPE:VALUE
    strings, such as `llama.attention.layer_norm_rms_epsilon=float:1e-6`. n_gpu_layers=-1 puts
    every layer on a GPU, if there is one (llama.cpp's programs put there what fits; -2 means every
    layer to them too). lora holds files of LoRA adapters (GGUF), added to the weights as the model
    computes. Raise SettingError for a value that llama.cpp can't use.
    """

    n_threads: int = 0
    n_threads_batch: int = 0
    n_ctx: int = 0
    n_batch: int = 2048
    n_ubatch: int = 512
    n_gpu_layers: int = -1
    flash_attn: str = "auto"
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    rope_scaling: str = ""
    rope_scale: float = 0.0
    rope_freq_base: float = 0.0
    rope_freq_scale: float = 0.0
    yarn_orig_ctx: int = 0
    yarn_ext_factor: float = -1.0
    yarn_attn_factor: float = -1.0
    yarn_beta_fast: float = -1.0
    yarn_beta_slow: float = -1.0
    override_kv: tuple[str, ...] = ()
    lora: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.type in ("int", "float"):
                kind, highest = (int, INT_MAX) if item.type == "int" else (float, FLOAT_MAX)
                low, high = _RANGES.get(item.name, (0, highest))
                number = check_number(item.name, value, kind, low, high)
                object.__setattr__(self, item.name, number)
        _one_of("flash_attn", self.flash_attn, FLASH_ATTN)
        _one_of("rope_scaling", self.rope_scaling, ROPE_SCALING)
        _one_of("cache_type_k", self.cache_type_k, CACHE_TYPES)
        _one_of("cache_type_v", self.cache_type_v, CACHE_TYPES)
        if self.rope_scale and self.rope_freq_scale:
            raise SettingError("rope_scale is 1 / rope_freq_scale; give one of the two")
        object.__setattr__(self, "override_kv", tuple(self.override_kv))
        object.__setattr__(self, "lora", tuple(os.fspath(path) for path in self.lora))
        for path in self.lora:
            if "," in path:  # llama.cpp cuts its list of adapters at each comma
                raise SettingError(f"lora={path!r} has a comma; rename the file")
        for text in self.override_kv:
            parse_override(text)

    def threads(self) -> int:
        """Return the threads for generation: as given, or as many as llama.cpp would take."""
        return self.n_threads or count_threads()

    def flags(self) -> list[str]:
        """Return the flags for what differs from llama.cpp's defaults."""
        flags = []
        for name, (flag, *_) in LOADING_FLAGS.items():
            value = getattr(self, name)
            if value == getattr(_DEFAULTS, name):
                continue
            for each in value if isinstance(value, tuple) else [value]:
                flags += [flag, each if isinstance(each, str) else f"{each!r}"]
        return flags

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values; `Loading(**values)` is the inverse."""
        values = {**asdict(self), "override_kv": list(self.override_kv), "lora": list(self.lora)}
        if not self.lora:  # keys of stored runs hold these values, and were made without it
            del values["lora"]
        return values


def parse_override(text: str) -> tuple[str, int | float | bool | str]:
    """Return key and typed value of a KEY=TYPE:VALUE override.

    >>> parse_override("qwen2.rope.freq_base=float:1e6")
    ('qwen2.rope.freq_base', 1000000.0)
    """
    match = _OVERRIDE.fullmatch(text)
    try:
        if match is None or "," in text:  # llama.cpp cuts its list of overrides at each comma
            raise ValueError
        value = match["value"]
        if match["type"] == "int":
            return match["key"], int(value)
        if match["type"] == "float":
            return match["key"], float(value)
        if match["type"] == "bool":
            return match["key"], {"true": True, "false": False}[value]
        return match["key"], value
    except (ValueError, KeyError):
        raise SettingError(
            f"override_kv={text!r} is not KEY=TYPE:VALUE with TYPE int, float, bool or str, and "
            "no comma"
        ) from None


def count_threads() -> int:
    """Count the threads that llama.cpp takes: LLAMA_ARG_THREADS, or one for each physical core.

    The rule is that of `common_cpu_get_num_physical_cores` in llama.cpp's common/common.cpp. On a
    hybrid CPU llama.cpp counts the fast cores only: give n_threads there. Raise SettingError if
    LLAMA_ARG_THREADS is not a whole number.
    """
    n_cpus = os.cpu_count() or 1
    if given := os.environ.get(THREADS):
        try:
            count = int(given)
        except ValueError:
            raise SettingError(f"{THREADS}={given!r} is not a number of threads") from None
        return count if count > 0 else n_cpus
    cpus = Path("/sys/devices/system/cpu").glob("cpu[0-9]*/topology/thread_siblings")
    cores = {path.read_text(encoding="ascii") for path in cpus}
    return len(cores) or (n_cpus if n_cpus <= 4 else n_cpus // 2)


def check_number(name: str, given: Any, kind: type, low: float, high: float) -> float | int:
    """Return a setting's number in its own type, int or float.

    Raise SettingError if it is not a number, not whole where it must be, or out of range.
    """
    if isinstance(given, bool) or not isinstance(given, numbers.Real):
        raise SettingError(f"{name}={given!r} is not a number")
    value: Any = given  # of 400 digits, too: float() would not take it
    if not low <= value <= high:  # not a number (nan) is out of every range
        least, most = ("the largest float" if n == FLOAT_MAX else f"{n:.10g}" for n in (low, high))
        raise SettingError(f"{name}={given!r} is out of range; give {least} to {most}")
    number: float | int = kind(given)
    if number != given and kind is int:
        raise SettingError(f"{name}={given!r} is not a whole number")
    return number


def _one_of(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        known = ", ".join(choice or "(the model's own)" for choice in choices)
        raise SettingError(f"{name}={value!r} is not one of {known}")


_DEFAULTS = Loading()
