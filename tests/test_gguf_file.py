"""What gguf_file says of sound, broken and hostile GGUF files."""

from __future__ import annotations

import importlib.util
import os
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import malformed
import pytest
from malformed import Gguf, Raw, sound, string, u32, u64, with_key, with_tensor

from qwqlab import hashes, llama_source, toolchain, trial
from qwqlab.errors import ModelFileError
from qwqlab.ggml_types import FILE_TYPES, REMOVED_TYPES, TENSOR_TYPES
from qwqlab.gguf_file import hash_model, inspect, list_parts
from qwqlab.gguf_values import Summary
from qwqlab.trial import check_loads


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, so that nothing is remembered from elsewhere; the build stays in use."""
    monkeypatch.setenv("QWQLAB_LLAMA_CPP_BUILD", str(toolchain.find().bin))
    monkeypatch.setenv("QWQLAB_HOME", str(tmp_path / "home"))
    return tmp_path


def write(folder: Path, made: Gguf | bytes) -> Path:
    path = folder / "made.gguf"
    path.write_bytes(made if isinstance(made, bytes) else made.build())
    return path


def refusal(folder: Path, made: Gguf | bytes) -> str:
    path = write(folder, made)
    with pytest.raises(ModelFileError) as caught:
        inspect(path)
    message = str(caught.value)
    assert str(path) in message
    assert message.endswith(".")
    assert "\n" not in message
    assert len(message) < 500
    return message


def test_a_sound_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    info = inspect(write(tmp_path, sound()))
    assert info.architecture == "llama"
    assert info.name == "tiny"
    assert info.file_type == "Q4_1"
    assert info.n_ctx_train == 64
    assert info.rms_norm_eps == pytest.approx(1e-5)
    assert info.rope == {"freq_base": 1e6}
    assert info.chat_template == "{{ messages }}"
    assert info.tokenizer.n_tokens == 3
    assert info.tokenizer.add_bos is False
    assert info.metadata["tokenizer.ggml.token_type"] == Summary("int32", 3, (1, 1, 3))
    assert [tensor.name for tensor in info.tensors][-1] == "output.weight"
    assert info.n_parameters == 32 * 3 + 32 + 256 * 2
    assert info.bytes_by_type == {"Q4_K": 288, "F32": 128, "Q4_1": 60}
    assert info.data_offset % 32 == 0
    assert info.tensors[1].offset == info.data_offset + 64


def test_version_2_and_another_alignment_are_read(tmp_path: Path) -> None:
    made = with_key("general.alignment", 128)
    made.version, made.alignment = 2, 128
    info = inspect(write(tmp_path, made))
    assert info.version == 2
    assert info.tensors[2].offset == info.data_offset + 256


def test_a_file_without_tensors_and_a_scalar_are_read(tmp_path: Path) -> None:
    vocabulary = sound()
    vocabulary.tensors = []
    assert inspect(write(tmp_path, vocabulary)).n_tensors == 0
    assert inspect(write(tmp_path, with_tensor((), n_bytes=4))).tensors[-1].n_bytes == 4


def test_long_values_are_summarised_and_never_kept_whole(tmp_path: Path) -> None:
    made = with_key("long.text", "x" * 1_500_000)
    made.keys.append(("long.list", [f"token {n}" for n in range(100_000)]))
    made.keys.append(("long.numbers", list(range(200_000))))
    info = inspect(write(tmp_path, made))
    assert info.metadata["long.text"].length == 1_500_000
    assert info.metadata["long.list"].length == 100_000
    assert info.metadata["long.list"].head[1] == "token 1"
    assert info.metadata["long.numbers"].head == tuple(range(8))
    assert sys.getsizeof(info.metadata["long.text"].head[0]) < 1000


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"GG", "is not a GGUF file"),
        (b"%PDF-1.7 and so on, some text", "it starts with '%PDF'"),
        (b"\x00\x1b[31m\n", r"it starts with '\\x00\\x1b[3'"),
        (b"GGUF", "is cut short"),
        (Gguf(version=1), "is of GGUF version 1"),
        (Gguf(version=4), "is of GGUF version 4"),
        (Gguf(version=0), "is of GGUF version 0"),
        (b"GGUF" + struct.pack(">IQQ", 3, 1, 1), "big-endian"),
        (Gguf(n_tensors=1 << 63), "says that it has 9223372036854775808 tensors"),
        (Gguf(n_keys=1 << 60), "says that it has 1152921504606846976 keys"),
        (Gguf(n_keys=(1 << 64) - 1), "keys, which do not fit in 24 bytes"),
        (with_key("k", Raw(8, u64(1 << 63))), "says that key k is 9223372036854775808 bytes long"),
        (with_key("k", Raw(8, u64((1 << 64) - 1))), "bytes long at byte"),
        (with_key("k", Raw(9, u32(9) + u64(1) + u32(4) + u64(1) + u32(7))), "nests an array"),
        (with_key("k", Raw(9, u32(4) + u64(1 << 62))), "has 4611686018427387904 elements"),
        (with_key("k", Raw(9, u32(8) + u64(1 << 61))), "has 2305843009213693952 elements"),
        (with_key("k", Raw(9, u32(8) + u64(1) + u64(1 << 40))), "an element of k is"),
        (with_key("k", Raw(9, u32(99) + u64(1))), "the type 99"),
        (with_key("k", Raw(13, b"")), "the type 13"),
        (with_key("k", Raw(0xFFFFFFFF, b"")), "the type -1"),
        (with_key("", 1), "an empty name for key 11"),
        (with_key("general.name", 1), "has the key general.name twice"),
        (with_key("general.alignment", 0), "has the alignment 0"),
        (with_key("general.alignment", 48), "which is not a power of two"),
        (with_key("general.alignment", "32"), "something else than a uint32"),
        (with_tensor((1, 1, 1, 1, 1)), "5 dimensions"),
        (with_tensor((0, 4)), "which holds nothing"),
        (with_tensor((-4,)), "which holds nothing"),
        (with_tensor((1 << 32, 1 << 32)), "too large to count"),
        (with_tensor(((1 << 63) - 1,), kind=0), "is cut short"),
        (with_tensor((33,), kind=3), "rows of 33 elements"),
        (with_tensor((32,), kind=31), "Q4_0_4_4, which llama.cpp no longer reads"),
        (with_tensor((32,), kind=43), "in type 43"),
        (with_tensor((32,), kind=0xFFFFFFFF), "in type -1"),
        (with_tensor((8,), offset=1 << 40), "at offset 1099511627776"),
        (with_tensor((8,), offset=17), "at offset 17, where 480 follows"),
        (with_tensor((8,), name="output.weight"), "has the tensor output.weight twice"),
        (with_tensor((8,), name="n" * 64), "64 bytes long, more than the 63 allowed"),
    ],
)
def test_a_malformed_file_is_refused_in_one_sentence(
    tmp_path: Path, content: Gguf | bytes, says: str
) -> None:
    assert says in refusal(tmp_path, content)


def test_a_count_that_would_take_minutes_is_refused_though_the_file_could_hold_it(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, Gguf(n_keys=1 << 26))
    # The file is sparse: two gigabytes long, a few kilobytes on disk.
    os.truncate(path, 2 << 30)
    with pytest.raises(ModelFileError, match="more than the 65536 allowed"):
        inspect(path)


def test_a_file_cut_at_any_field_is_refused_but_not_one_that_lacks_only_padding(
    tmp_path: Path,
) -> None:
    whole = sound().build()
    cut = 0
    for piece in list(sound().pieces())[:-1]:
        for length in {cut, cut + len(piece) // 2}:
            refusal(tmp_path, whole[:length])
        cut += len(piece)
    last = list(sound().pieces())[-1]
    assert inspect(write(tmp_path, whole[: len(whole) - len(last)])).n_tensors == 3


def test_a_cut_file_names_the_tensor_that_is_incomplete(tmp_path: Path) -> None:
    whole = sound().build()
    message = refusal(tmp_path, whole[:-1])
    assert f"output.weight ends at byte {len(whole)} but the file has {len(whole) - 1}" in message
    assert message.endswith("fetch it again.")


def test_names_from_a_file_are_escaped_and_shortened_in_messages(tmp_path: Path) -> None:
    message = refusal(tmp_path, with_key("\x1b[31mred\n" * 100, Raw(77, b"")))
    assert "\x1b" not in message
    assert r"\x1b[31mred\n" in message


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="is a folder"):
        inspect(tmp_path)
    with pytest.raises(ModelFileError, match="is not a file"):
        inspect(tmp_path / "absent.gguf")


def test_whatever_is_flipped_cut_or_enlarged_ends_in_an_answer_or_a_refusal(
    tmp_path: Path,
) -> None:
    whole = sound().build()
    header = whole.index(b"output.weight") + 60
    interesting = [0, 1, 0x7F, 0x80, 0xFF]
    rng = random.Random(3407)
    answers = refusals = 0
    for _ in range(2000):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(header)
            action = rng.randrange(4)
            if action == 0:
                data[at] ^= 1 << rng.randrange(8)
            elif action == 1:
                data[at] = rng.choice(interesting)
            elif action == 2:
                data[at : at + 8] = rng.choice([u64(1 << 63), u64((1 << 64) - 1), u64(1 << 33)])
            else:
                del data[rng.randrange(len(data)) :]
                data = data or bytearray(b"G")
                header = min(header, len(data))
        header = whole.index(b"output.weight") + 60
        try:
            inspect(write(tmp_path, bytes(data)))
            answers += 1
        except ModelFileError:
            refusals += 1
    assert answers + refusals == 2000
    assert answers > 50
    assert refusals > 500


READ_HEADERS = """
import ctypes, sys
ggml = ctypes.CDLL(sys.argv[1])
class Params(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p)]
ggml.gguf_init_from_file.restype = ctypes.c_void_p
ggml.gguf_init_from_file.argtypes = [ctypes.c_char_p, Params]
for path in sys.argv[2:]:
    if not ggml.gguf_init_from_file(path.encode(), Params(True, None)):
        sys.exit(f"llama.cpp refuses {path}")
"""


def test_llama_cpp_reads_every_header_that_passes(tmp_path: Path) -> None:
    whole = sound().build()
    end = whole.index(b"output.weight") + 60
    rng = random.Random(7)
    passed: list[str] = []
    for number in range(1000):
        data = bytearray(whole)
        data[rng.randrange(end)] ^= 1 << rng.randrange(8)
        path = tmp_path / f"{number}.gguf"
        path.write_bytes(data)
        try:
            inspect(path)
        except ModelFileError:
            continue
        passed.append(str(path))
    assert len(passed) > 100
    library = next(toolchain.library_dir().glob(f"libggml-base{toolchain.SUFFIX}"))
    done = subprocess.run(
        [sys.executable, "-c", READ_HEADERS, str(library), *passed],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_embedded_model_says_what_it_is(model_path: Path) -> None:
    info = inspect(model_path)
    assert info.n_bytes == 98_362_432
    assert (info.architecture, info.version, info.n_tensors) == ("llama", 3, 272)
    assert info.n_parameters == 134_515_008
    assert info.bytes_by_type == {"Q4_1": 66_355_200, "Q8_0": 30_081_024, "F32": 140_544}
    assert info.file_type == "Q4_1"
    assert info.n_ctx_train == 8192
    assert info.rope == {"freq_base": 100_000.0, "dimension_count": 64}
    assert info.rms_norm_eps == pytest.approx(1e-5)
    tokenizer = info.tokenizer
    assert (tokenizer.model, tokenizer.pre, tokenizer.n_tokens) == ("gpt2", "smollm", 49_152)
    assert tokenizer.pad == tokenizer.eos == 2
    assert info.chat_template is not None
    assert "<|im_start|>" in info.chat_template
    assert info.tensors[-1].offset + info.tensors[-1].n_bytes == info.n_bytes


def test_a_long_file_is_inspected_without_reading_its_tensors(
    model_path: Path, tmp_path: Path
) -> None:
    path = tmp_path / "long.gguf"
    path.write_bytes(model_path.read_bytes())
    os.truncate(path, 20_000_000_000)
    with path.open("rb") as file:
        from qwqlab.gguf_reader import read_header

        read_header(file, path)
        assert file.tell() < 4_000_000


def test_an_architecture_that_llama_cpp_does_not_know_is_named(home: Path) -> None:
    path = write(home, sound(architecture="foo"))
    with pytest.raises(ModelFileError, match="does not know: 'foo'"):
        check_loads(path)


def test_a_sound_header_over_an_incomplete_model_gives_llama_cpps_reason(home: Path) -> None:
    with pytest.raises(ModelFileError, match=r"cannot be loaded by llama\.cpp: .*(key|missing)"):
        check_loads(write(home, sound()))


def test_a_number_that_aborts_llama_cpp_is_an_error_here(home: Path) -> None:
    made = sound()
    made.keys += [("llama.embedding_length", 32), ("llama.block_count", 4_000_000)]
    with pytest.raises(ModelFileError, match=r"GGML_ASSERT\(hparams\.n_layer|llama\.cpp: "):
        check_loads(write(home, made))


def test_a_file_that_kills_the_loading_process_does_not_kill_this_one(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "LOAD", "import os; os.kill(os.getpid(), 11)")
    with pytest.raises(ModelFileError, match="was killed by signal 11"):
        check_loads(write(home, sound()))


def test_a_model_that_loads_is_tried_once(
    model_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = home / "copy.gguf"
    path.write_bytes(model_path.read_bytes())
    check_loads(path)
    monkeypatch.setattr(trial, "LOAD", "import sys; sys.exit(3)")
    check_loads(path)
    os.utime(path, ns=(1, 1))
    with pytest.raises(ModelFileError):
        check_loads(path)


def test_the_catalogs_own_file_needs_no_trial(
    model_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = home / "copy.gguf"
    path.write_bytes(model_path.read_bytes())
    hashes.sha256_of(path)
    monkeypatch.setattr(trial, "LOAD", "import sys; sys.exit(3)")
    check_loads(path)


@pytest.mark.parametrize("count", [0, 1000])
def test_an_override_that_aborts_llama_cpp_is_an_error_here(model_path: Path, count: int) -> None:
    override = f"llama.block_count=int:{count}"
    with pytest.raises(ModelFileError, match=f"leave out {override}"):
        check_loads(model_path, (override,))


def test_weights_that_are_not_numbers_are_found(model_path: Path, home: Path) -> None:
    path = home / "nan.gguf"
    path.write_bytes(model_path.read_bytes())
    norm = next(tensor for tensor in inspect(path).tensors if tensor.name == "output_norm.weight")
    with path.open("r+b") as file:
        file.seek(norm.offset)
        file.write(struct.pack("<f", float("nan")) * norm.n_elements)
    with pytest.raises(ModelFileError, match="its logits are not numbers"):
        check_loads(path)


def test_a_false_count_of_parts_is_refused(model_path: Path, home: Path) -> None:
    args = ["--split-max-tensors", "150", str(model_path), str(home / "split")]
    toolchain.run_tool("llama-gguf-split", args)
    renamed = (home / "split-00001-of-00002.gguf").rename(home / "split-00001-of-90000.gguf")
    with pytest.raises(ModelFileError, match="one part of 2 and not named so"):
        list_parts(inspect(renamed))


def test_a_split_model_is_judged_by_all_its_parts(model_path: Path, home: Path) -> None:
    args = ["--split-max-tensors", "150", str(model_path), str(home / "split")]
    toolchain.run_tool("llama-gguf-split", args)
    first = inspect(home / "split-00001-of-00002.gguf")
    assert [part.name for part in list_parts(first)] == [
        "split-00001-of-00002.gguf",
        "split-00002-of-00002.gguf",
    ]
    check_loads(first.path)
    before = hash_model(first)
    last = list_parts(first)[1]
    with last.open("r+b") as file:
        file.truncate(last.stat().st_size // 2)
    assert hash_model(first) != before
    with pytest.raises(ModelFileError, match=r"cannot be loaded by llama\.cpp"):
        check_loads(first.path)
    last.unlink()
    with pytest.raises(ModelFileError, match=r"lacks its part split-00002-of-00002\.gguf"):
        check_loads(first.path)


def test_the_table_of_types_is_that_of_gguf_py(
    monkeypatch: pytest.MonkeyPatch, lacking: Callable[[str], NoReturn]
) -> None:
    source = llama_source.find_source() or lacking("llama.cpp's source is not here")
    # That of this source, not of the package installed: a module of its own, under its own name.
    at = source / "gguf-py" / "gguf" / "constants.py"
    spec = importlib.util.spec_from_file_location("llama_cpp_constants", at)
    assert spec is not None and spec.loader is not None
    constants = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, constants)
    spec.loader.exec_module(constants)
    theirs = {int(kind): (kind.name, *sizes) for kind, sizes in constants.GGML_QUANT_SIZES.items()}
    ours = {kind: (row.name, row.block, row.n_bytes) for kind, row in TENSOR_TYPES.items()}
    assert ours == theirs
    assert not set(REMOVED_TYPES) & set(theirs)
    assert {
        int(kind): kind.name.removeprefix("ALL_").removeprefix("MOSTLY_")
        for kind in constants.LlamaFileType
        if kind.name != "GUESSED"
    } == FILE_TYPES


def test_the_writer_of_these_tests_writes_every_length_it_states() -> None:
    made = with_key("k", "value")
    assert malformed.as_mapping(made)["k"] == "value"
    assert string("value") in made.build()
    assert b"".join(made.pieces()) == made.build()
