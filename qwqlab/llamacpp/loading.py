"""How a model is loaded and run: everything that can change its logits or its speed.

Names, flags and defaults are llama.cpp's, so that a Loading means the same to the bindings and to
the command-line tools.
"""

from __future__ import annotations

import numbers
import os
import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..errors import SettingError
from .reading import read_float, read_int

INT_MAX = 2**31 - 1
FLOAT_MAX = 3.4e38
FLASH_ATTN = ("auto", "on", "off")
ROPE_SCALING = ("", "none", "linear", "yarn")
THREADS = "LLAMA_ARG_THREADS"  # the variable from which llama.cpp's own programs take them
CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
_OVERRIDE = re.compile(r"([^=]{1,127})=(int|float|bool|str):(.*)", re.S)


def _option(default: Any, *flags: str, low: float = 0, high: float | None = None) -> Any:
    """Return a field with llama.cpp's flags for it, and for a number its range.

    high: without it, what the number's type in llama.cpp holds.
    """
    return field(default=default, metadata={"flags": flags, "low": low, "high": high})


@dataclass(frozen=True)
class Loading:
    """How to load a model. Zero threads or context means llama.cpp's own choice.

    n_ctx counts the tokens of one sequence. override_kv holds llama.cpp's KEY=TYPE:VALUE
    strings, such as `llama.attention.layer_norm_rms_epsilon=float:1e-6`. n_gpu_layers=-1 puts
    every layer on a GPU, if there is one (llama.cpp's programs put there what fits; -2 means every
    layer to them too). lora holds files of LoRA adapters (GGUF), added to the weights as the model
    computes. Raise SettingError for a value that llama.cpp can't use.
    """

    n_threads: int = _option(0, "-t", "--threads", high=512)
    n_threads_batch: int = _option(0, "-tb", "--threads-batch", high=512)
    n_ctx: int = _option(0, "-c", "--ctx-size")
    n_batch: int = _option(2048, "-b", "--batch-size", low=1)
    n_ubatch: int = _option(512, "-ub", "--ubatch-size", low=1)
    n_gpu_layers: int = _option(-1, "-ngl", "--gpu-layers", "--n-gpu-layers", low=-2)
    device: str = _option("", "-dev", "--device")
    flash_attn: str = _option("auto", "-fa", "--flash-attn")
    cache_type_k: str = _option("f16", "-ctk", "--cache-type-k")
    cache_type_v: str = _option("f16", "-ctv", "--cache-type-v")
    rope_scaling: str = _option("", "--rope-scaling")
    rope_scale: float = _option(0.0, "--rope-scale")
    rope_freq_base: float = _option(0.0, "--rope-freq-base")
    rope_freq_scale: float = _option(0.0, "--rope-freq-scale")
    yarn_orig_ctx: int = _option(0, "--yarn-orig-ctx")
    yarn_ext_factor: float = _option(-1.0, "--yarn-ext-factor", low=-FLOAT_MAX)
    yarn_attn_factor: float = _option(-1.0, "--yarn-attn-factor", low=-FLOAT_MAX)
    yarn_beta_fast: float = _option(-1.0, "--yarn-beta-fast", low=-FLOAT_MAX)
    yarn_beta_slow: float = _option(-1.0, "--yarn-beta-slow", low=-FLOAT_MAX)
    override_kv: tuple[str, ...] = _option((), "--override-kv")
    lora: tuple[str, ...] = _option((), "--lora")

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.type in ("int", "float"):
                kind, most = (int, INT_MAX) if item.type == "int" else (float, FLOAT_MAX)
                low, high = item.metadata["low"], item.metadata["high"] or most
                number = check_number(item.name, value, kind, low, high)
                object.__setattr__(self, item.name, number)
        if self.device not in ("", "none"):
            raise SettingError(
                f"device={self.device!r} names what to compute on, and the lab leaves that to "
                "llama.cpp; give none, to compute on the CPU alone"
            )
        _one_of("flash_attn", self.flash_attn, FLASH_ATTN)
        _one_of("rope_scaling", self.rope_scaling, ROPE_SCALING)
        _one_of("cache_type_k", self.cache_type_k, CACHE_TYPES)
        _one_of("cache_type_v", self.cache_type_v, CACHE_TYPES)
        if self.rope_scale and self.rope_freq_scale:
            raise SettingError("rope_scale is 1 / rope_freq_scale; give one of the two")
        for name in ("override_kv", "lora"):
            if isinstance(text := getattr(self, name), str):
                raise SettingError(f"{name}={text!r} is one text; give a list of them, [{text!r}]")
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
            if value == getattr(Loading, name):
                continue
            for each in value if isinstance(value, tuple) else [value]:
                flags += [flag, each if isinstance(each, str) else f"{each!r}"]
        return flags

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values; `Loading(**values)` is the inverse."""
        return {**asdict(self), "override_kv": list(self.override_kv), "lora": list(self.lora)}


LOADING_FLAGS: dict[str, tuple[str, ...]] = {
    item.name: item.metadata["flags"] for item in fields(Loading)
}


def parse_override(text: str) -> tuple[str, int | float | bool | str]:
    """Return key and typed value of a KEY=TYPE:VALUE override.

    >>> parse_override("qwen2.rope.freq_base=float:1e6")
    ('qwen2.rope.freq_base', 1000000.0)
    """
    match = _OVERRIDE.fullmatch(text)
    if match is None or "," in text:  # llama.cpp cuts its list of overrides at each comma
        raise SettingError(
            f"override_kv={text!r} is not KEY=TYPE:VALUE with TYPE int, float, bool or str, and "
            "no comma"
        )
    key, kind, value = match.groups()
    if kind == "str":
        if len(value.encode("utf-8", "surrogateescape")) > 127:
            raise SettingError(f"override_kv={text!r} has more than llama.cpp's 127 bytes of text")
        return key, value
    try:
        if kind == "bool":
            return key, {"true": True, "false": False}[value]
        return key, (read_int if kind == "int" else read_float)(value)[0]
    except (ValueError, KeyError, OverflowError):
        right = "true or false" if kind == "bool" else "a number"
        raise SettingError(f"override_kv={text!r} needs {right} after {kind}:") from None


def count_threads() -> int:
    """Count the threads that llama.cpp takes: LLAMA_ARG_THREADS, or one for each physical core.

    The rule is that of `common_cpu_get_num_physical_cores` in llama.cpp's common/common.cpp. On a
    hybrid CPU llama.cpp counts the fast cores only: give n_threads there. Raise SettingError if
    LLAMA_ARG_THREADS is not a whole number.
    """
    n_cpus = os.cpu_count() or 1
    if given := os.environ.get(THREADS):
        try:
            count, _ = read_int(given)
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
