"""The lab's reader of GGUF headers against llama.cpp's own, `gguf_init_from_file`."""

from __future__ import annotations

import ast
import os
import random
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from malformed import Gguf, Raw, sound, string, u32, u64, with_tensor
from mutations import small_files

from qwqlab.errors import ModelFileError
from qwqlab.llamacpp import TENSOR_TYPES, library_dir
from qwqlab.llamacpp.tools import SUFFIX
from qwqlab.models import GGUFInfo, gguf_header, inspect
from qwqlab.models.gguf_header import NUMBERS, Summary

SEED = 3407

# Reads the names of files from stdin; says what llama.cpp finds in each, or None if it refuses it.
ORACLE = """
import ctypes, sys
base = ctypes.CDLL(sys.argv[1])
number, text, pointer = ctypes.c_int64, ctypes.c_char_p, ctypes.c_void_p
class Params(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.POINTER(pointer))]
def ask(name, result, *args):
    function = base[name]
    function.restype = result
    return function(*args)
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
def key(*at):
    kind = ask("gguf_get_kv_type", ctypes.c_int, *at)
    if kind == 8:
        value = ask("gguf_get_val_str", text, *at)
    elif kind == 9:
        value = ask("gguf_get_arr_n", number, *at)
    else:
        value = ctypes.string_at(ask("gguf_get_val_data", pointer, *at), SIZES[kind])
    return ask("gguf_get_key", text, *at), kind, value
def tensor(*at):
    place = ask("gguf_get_data_offset", number, at[0]) + ask("gguf_get_tensor_offset", number, *at)
    kind = ask("gguf_get_tensor_type", ctypes.c_int, *at)
    size = ask("gguf_get_tensor_size", number, *at)
    return ask("gguf_get_tensor_name", text, *at), kind, place, size
def every(one, n):
    return [one(ctx, number(i)) for i in range(ask(n, number, ctx))]
for line in sys.stdin:
    tensors = pointer()
    params = Params(True, ctypes.pointer(tensors))
    ctx = pointer(ask("gguf_init_from_file", pointer, line.rstrip().encode(), params))
    if ctx:
        print((every(key, "gguf_get_n_kv"), every(tensor, "gguf_get_n_tensors")), flush=True)
        ask("gguf_free", None, ctx)
        ask("ggml_free", None, tensors)
    else:
        print(None, flush=True)
"""


# Where the lab refuses what llama.cpp's reader of headers takes: what it says, and why.
STRICTER = {
    # But for one so large that its count of bytes overflows, whose shape no model has.
    "is cut short: tensor ": "llama.cpp's loader refuses a tensor that the file doesn't hold",
    "that the lab reads: ": "the stated limit on the bytes of a header",
    ", and the lab reads at most ": "the stated limit on the numbers of keys and tensors",
}


class Oracle:
    """llama.cpp's reader in a process of its own, which is started anew if it ends."""

    def __init__(self) -> None:
        self.n_crashes = 0
        self._start()

    def _start(self) -> None:
        library = library_dir() / f"libggml-base{SUFFIX}"
        self._process = subprocess.Popen(
            [sys.executable, "-c", ORACLE, str(library)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "GGML_NO_BACKTRACE": "1"},
            text=True,
        )

    def read(self, path: Path) -> Any:
        """What llama.cpp finds: keys (name, type, value) and tensors; None if it refuses."""
        assert self._process.stdin and self._process.stdout
        print(path, file=self._process.stdin, flush=True)
        if line := self._process.stdout.readline():
            return ast.literal_eval(line)
        self.close()
        self.n_crashes += 1
        self._start()
        return None

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture
def oracle() -> Iterator[Oracle]:
    oracle = Oracle()
    yield oracle
    oracle.close()


def summarise(info: GGUFInfo) -> Any:
    """What the lab's reader found, in the oracle's form but for the types of keys."""
    keys = [
        (name.encode("utf-8", "surrogateescape"), value) for name, value in info.metadata.items()
    ]
    kinds = {stored.name: kind for kind, stored in TENSOR_TYPES.items()}
    tensors = [
        (t.name.encode("utf-8", "surrogateescape"), kinds[t.type], t.offset, t.n_bytes)
        for t in info.tensors
    ]
    return keys, tensors


def as_the_lab_reads(kind: int, value: Any) -> Any:
    if kind == 8:
        return value.decode("utf-8", "replace")
    if kind == 9:
        return value
    return struct.unpack(f"<{NUMBERS[kind]}", value)[0]


def compare(path: Path, oracle: Oracle) -> str:
    """Both readers' judgement of a file; AssertionError if they disagree without a reason."""
    theirs = oracle.read(path)
    try:
        info = inspect(path)
    except ModelFileError as error:
        message = str(error)
        assert "\n" not in message and message.endswith("."), message
        if theirs is None:
            return "both refuse"
        reasons = [reason for said, reason in STRICTER.items() if said in message]
        assert reasons, f"llama.cpp takes it, and the lab says: {message}"
        return reasons[0]
    assert theirs is not None, "the lab takes it, and llama.cpp does not"
    keys: dict[bytes, Any] = {}
    for name, kind, value in theirs[0]:
        keys.setdefault(name, as_the_lab_reads(kind, value))
    ours, tensors = summarise(info)
    plain = [(k, v.length if isinstance(v, Summary) else v) for k, v in ours]
    assert repr(plain) == repr(list(keys.items()))  # as text, in which nan is nan
    assert tensors == theirs[1]
    return "both take"


def try_many(count: int, seed: int, folder: Path, oracle: Oracle) -> None:
    rng = random.Random(seed)
    path = folder / "mutated.gguf"
    ends: Counter[str] = Counter()
    for place, data in enumerate(small_files(rng, count)):
        path.write_bytes(data)
        try:
            ends[compare(path, oracle)] += 1
        except AssertionError as error:
            pytest.fail(f"seed {seed}, file {place}: {error}; the file is {data.hex()}")
    print(f"seed {seed}, {count} headers: {dict(ends)}, {oracle.n_crashes} crashes of llama.cpp")
    assert ends["both take"] > count // 20
    assert ends["both refuse"] > count // 4


def test_mutated_headers_are_read_as_llama_cpp_reads_them(tmp_path: Path, oracle: Oracle) -> None:
    try_many(600, SEED, tmp_path, oracle)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(4))
def test_100000_mutated_headers_are_read_as_llama_cpp_reads_them(
    seed: int, tmp_path: Path, oracle: Oracle
) -> None:
    try_many(25_000, seed, tmp_path, oracle)


def strings(n: int) -> Raw:
    return Raw(9, u32(8) + u64(n) + u64(0) * n)


@pytest.mark.parametrize(
    ("made", "end"),
    [
        (with_tensor((4, 0)), "both take"),
        (with_tensor((0,)), "both take"),
        (with_tensor((0, 1 << 62, 1 << 62)), "both take"),
        (with_tensor((1 << 62, 1 << 62, 0)), "both refuse"),
        (with_tensor((1 << 40, 0, 1 << 40)), "both refuse"),  # ggml ends the process
        (with_tensor((1 << 40, 0, 1 << 20)), "both take"),
        (with_tensor((), n_bytes=4), "both take"),
        (with_tensor((), kind=3), "both refuse"),
        (with_tensor((8,), n_bytes=32, name="n" * 63), "both take"),
        (with_tensor((8,), n_bytes=32, name="n" * 64), "both refuse"),
        (with_tensor((8,), n_bytes=32, name=""), "both take"),
        (with_tensor((8,), n_bytes=32, name=b"token_embd.weight\0x"), "both take"),
        (with_tensor((8,), n_bytes=32, offset=512 + 64), "both refuse"),
        (with_tensor((1 << 20,)), "llama.cpp's loader refuses"),
        (with_tensor((1 << 60,), kind=2), "llama.cpp's loader refuses"),  # its sum overflows
        (Gguf(keys=[("k", 1), (b"k\0a", 2), (b"k\xff", 3), (b"k\xfe", 4)]), "both take"),
        (Gguf(keys=[("", 1)]), "both refuse"),
        (Gguf(keys=[("k", "a\0b"), ("l", Raw(8, string(b"\xff")))]), "both take"),
        (Gguf(keys=[("k", 1), ("k", 1)]), "both refuse"),
        (Gguf(keys=[("k", strings(20)), ("l", Raw(9, u32(7) + u64(2) + b"\2\0"))]), "both take"),
        (Gguf(keys=[("k", Raw(7, b"\2"))]), "both take"),
        (Gguf(keys=[("general.alignment", Raw(0, b"\x20"))]), "both refuse"),
        (Gguf(keys=[("general.alignment", Raw(7, b"\1"))]), "both refuse"),
        (Gguf(keys=[(b"general.alignment\0x", Raw(10, u64(32)))]), "both refuse"),
        (Gguf(keys=[("general.alignment", 1 << 31)]), "both take"),
    ],
)  # fmt: skip
def test_an_odd_header_is_judged_as_llama_cpp_judges_it(
    made: Gguf, end: str, tmp_path: Path, oracle: Oracle
) -> None:
    path = tmp_path / "odd.gguf"
    path.write_bytes(made.build())
    assert compare(path, oracle).startswith(end)


@pytest.mark.parametrize(
    ("limit", "most", "says"),
    [
        ("MAX_NAMES", 10, "counts 11 keys, and the lab reads at most 10"),
        ("MAX_NAMES", 2, "counts 3 tensors, and the lab reads at most 2"),
        ("MAX_HEADER", 400, "has a header longer than the 0 MiB that the lab reads: "),
    ],
)
def test_a_header_beyond_a_limit_is_refused_with_the_limit_though_llama_cpp_takes_it(
    limit: str,
    most: int,
    says: str,
    tmp_path: Path,
    oracle: Oracle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "long.gguf"
    path.write_bytes(sound().build())
    assert compare(path, oracle) == "both take"
    monkeypatch.setattr(gguf_header, limit, most)
    with pytest.raises(ModelFileError, match=says):
        inspect(path)


def test_every_number_of_a_type_is_judged_as_llama_cpp_judges_it(
    tmp_path: Path, oracle: Oracle
) -> None:
    path = tmp_path / "type.gguf"
    ends = {}
    for kind in range(-1, 64):
        stored = TENSOR_TYPES.get(kind)
        made = with_tensor((512,), kind % (1 << 32), n_bytes=512 * 8)
        made.tensors.append(("last", (0,), 0, None, 0))
        if stored:
            made.tensors[-2] = (*made.tensors[-2][:4], 512 // stored.block * stored.n_bytes)
        path.write_bytes(made.build())
        ends[kind] = compare(path, oracle)
    assert {kind for kind, end in ends.items() if end == "both take"} == set(TENSOR_TYPES)


def test_both_read_the_embedded_model_alike(model_path: Path, oracle: Oracle) -> None:
    assert compare(model_path, oracle) == "both take"
