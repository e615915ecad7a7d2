"""Sound, broken and hostile GGUF files: what is read of them, and what is refused."""

from __future__ import annotations

import importlib.util
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from malformed import Gguf, Raw, sound, string, u32, u64, with_key, with_tensor

from qwqlab import files
from qwqlab.errors import ModelFileError
from qwqlab.llamacpp import FILE_TYPES, TENSOR_TYPES, builds, tools
from qwqlab.models import check_loads, hash_model, inspect, list_parts, trial
from qwqlab.models.gguf_header import Summary, read_header


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, so that nothing is remembered from elsewhere; the build stays in use."""
    monkeypatch.setenv("QWQLAB_LLAMA_CPP_BUILD", str(tools.find_build().bin))
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
    assert info.metadata["tokenizer.ggml.token_type"] == Summary(3, (1, 1, 3))
    assert [tensor.name for tensor in info.tensors][-1] == "output.weight"
    assert info.n_parameters == 32 * 3 + 32 + 256 * 2
    assert info.bytes_by_type == {"Q4_K": 288, "F32": 128, "Q4_1": 60}
    assert info.tensors[0].offset % 32 == 0
    assert info.tensors[1].offset == info.tensors[0].offset + 64


def test_version_2_and_another_alignment_are_read(tmp_path: Path) -> None:
    made = with_key("general.alignment", 128)
    made.version, made.alignment = 2, 128
    info = inspect(write(tmp_path, made))
    assert info.version == 2
    assert info.tensors[2].offset == info.tensors[0].offset + 256


def test_a_file_without_tensors_and_a_scalar_are_read(tmp_path: Path) -> None:
    vocabulary = sound()
    vocabulary.tensors = []
    assert inspect(write(tmp_path, vocabulary)).n_tensors == 0
    assert inspect(write(tmp_path, with_tensor((), n_bytes=4))).tensors[-1].n_bytes == 4


def test_names_and_texts_are_read_as_llama_cpp_reads_them(tmp_path: Path) -> None:
    made = with_key(b"k.\xff", 1)
    made.keys += [(b"k.\xfe", 2), ("t", "a\0b"), (b"t\0x", 3), ("u", Raw(8, string(b"\xff")))]
    made.tensors = [(b"t.\xff", (4,), 0, None, 16), (b"t.\xfe", (4,), 0, None, 16)]
    info = inspect(write(tmp_path, made))
    found = [(ascii(name), value) for name, value in list(info.metadata.items())[-4:]]
    assert found == [
        (r"'k.\udcff'", 1), (r"'k.\udcfe'", 2), ("'t'", "a"), ("'u'", "\ufffd")
    ]  # fmt: skip
    assert len({tensor.name for tensor in info.tensors}) == 2


def test_tensors_of_no_elements_are_read_and_take_no_bytes(tmp_path: Path) -> None:
    made = with_tensor((4, 0), name="a.weight")
    made.tensors += [("b.weight", (0,), 12, None, 0), ("c.weight", (4,), 0, None, 16)]
    *_, a, b, c = inspect(write(tmp_path, made)).tensors
    assert (a.n_bytes, b.n_elements, c.n_bytes) == (0, 0, 16)
    assert a.offset == b.offset == c.offset


def test_arrays_are_summarised_and_never_kept_whole(tmp_path: Path) -> None:
    made = with_key("long.list", [f"token {n}" for n in range(100_000)])
    made.keys.append(("long.numbers", list(range(200_000))))
    info = inspect(write(tmp_path, made))
    assert info.metadata["long.list"].length == 100_000
    assert info.metadata["long.list"].head[1] == "token 1"
    assert info.metadata["long.numbers"].head == tuple(range(8))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is not a GGUF file"),
        (b"%PDF-1.7 and so on, some text", "it starts with '%PDF'"),
        (b"\x00\x1b[31m\n", r"it starts with '\\x00\\x1b[3'"),
        (b"GGUF", "is cut short"),
        (Gguf(version=1), "is of GGUF version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 1, 1), "is of GGUF version"),
        (Gguf(n_tensors=1 << 63), "counts 9223372036854775808 tensors, and the lab reads at most"),
        (Gguf(n_keys=(1 << 64) - 1), "counts 18446744073709551615 keys, and the lab reads"),
        (Gguf(n_tensors=1), "it ends within the name of tensor 0"),
        (Gguf(n_keys=1), "it ends within the name of key 0"),
        (Gguf(keys=[("", 1)]), "has a key without a name"),
        (with_key("k", Raw(8, u64(1 << 63))), "key k takes 9223372036854775808 bytes"),
        (with_key("k", Raw(8, u64(1 << 20))), "is cut short: it ends within key k"),
        (with_key("k", Raw(9, u32(9) + u64(1) + u32(4) + u64(1) + u32(7))), "key k the type 9"),
        (with_key("k", Raw(9, u32(4) + u64(1 << 62))), "key k takes 18446744073709551584 bytes"),
        (with_key("k", Raw(9, u32(4) + u64(1 << 20))), "key k 1048576 elements, more than the"),
        (with_key("k", Raw(9, u32(8) + u64(1 << 61))), "key k"),
        (
            with_key("k", Raw(9, u32(8) + u64(1) + u64(1 << 40))),
            "key k takes 1099511627776 bytes",
        ),
        (with_key("k", Raw(0xFFFFFFFF, b"")), "the type -1"),
        (with_key("general.name", 1), "has key general.name twice"),
        (with_key("general.alignment", 0), "has the alignment 0"),
        (with_key("general.alignment", "32"), "which is not a power of two"),
        (with_key("general.alignment", True), "has the alignment True"),
        (with_tensor((1, 1, 1, 1, 1)), "5 dimensions"),
        (with_tensor((-4,)), "the shape (-4,)"),
        (with_tensor((1 << 32, 1 << 32)), "the shape (4294967296, 4294967296), which cannot be"),
        (with_tensor((1 << 32,)), "is cut short"),
        (with_tensor((8,), name="n" * 64), "a name of 64 bytes, but ggml's have 63"),
        (with_tensor((33,), kind=3), "cannot store in blocks of 32"),
        (with_tensor((32,), kind=31), "in type 31, which the lab does not know"),
        (with_tensor((8,), offset=1 << 40), "puts tensor extra.weight at byte 1099511627776 of"),
        (with_tensor((8,), name="output.weight"), "has tensor output.weight twice"),
    ],
)
def test_a_malformed_file_is_refused_in_one_sentence(
    tmp_path: Path, content: Gguf | bytes, says: str
) -> None:
    assert says in refusal(tmp_path, content)


def test_a_file_of_zeros_is_refused_at_once_though_its_counts_would_fit(tmp_path: Path) -> None:
    # As a download that was given its full size beforehand: sparse, a few kilobytes on disk.
    path = write(tmp_path, Gguf(n_keys=1 << 16))
    os.truncate(path, 2 << 30)
    with pytest.raises(ModelFileError, match="twice"):
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
        read_header(file, path)
        assert file.tell() < 4_000_000


def test_an_architecture_that_llama_cpp_does_not_know_is_named(home: Path) -> None:
    path = write(home, sound(architecture="foo"))
    with pytest.raises(ModelFileError, match="unknown model architecture: 'foo'"):
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
    monkeypatch.setattr(
        trial, "CHILD", (sys.executable, "-c", "import os; os.kill(os.getpid(), 11)")
    )
    with pytest.raises(ModelFileError, match="was killed by signal 11"):
        check_loads(write(home, sound()))


def test_a_model_that_loads_is_tried_once(
    model_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = home / "copy.gguf"
    path.write_bytes(model_path.read_bytes())
    check_loads(path)
    monkeypatch.setattr(trial, "CHILD", (sys.executable, "-c", "import sys; sys.exit(3)"))
    check_loads(path)
    os.utime(path, ns=(1, 1))
    with pytest.raises(ModelFileError):
        check_loads(path)


def test_the_catalogs_own_file_needs_no_trial(
    model_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = home / "copy.gguf"
    path.write_bytes(model_path.read_bytes())
    files.sha256_of(path)
    monkeypatch.setattr(trial, "CHILD", (sys.executable, "-c", "import sys; sys.exit(3)"))
    check_loads(path)


@pytest.mark.parametrize("kind", ["none", pytest.param("no_vocab", marks=pytest.mark.nightly)])
def test_a_model_without_a_vocabulary_is_refused_before_a_prompt_ends_the_process(
    model_path: Path, kind: str
) -> None:
    override = f"tokenizer.ggml.model=str:{kind}"
    with pytest.raises(ModelFileError, match=f"holds no vocabulary.*leave out {override}"):
        check_loads(model_path, (override,))


@pytest.mark.nightly
def test_a_vocabulary_with_which_llama_cpp_reads_for_ever_is_refused(model_path: Path) -> None:
    override = "tokenizer.ggml.model=str:rwkv"
    with pytest.raises(ModelFileError, match=f"leave out {override}"):
        check_loads(model_path, (override,))


def test_an_override_that_aborts_llama_cpp_is_an_error_here(model_path: Path) -> None:
    override = "llama.block_count=int:1000"
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


def test_a_split_model_is_judged_by_all_its_parts(model_path: Path, home: Path) -> None:
    args = ["--split-max-tensors", "150", str(model_path), str(home / "split")]
    tools.run_tool("llama-gguf-split", args)
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
    with pytest.raises(ModelFileError, match=r"needs split-00002-of-00002\.gguf"):
        check_loads(first.path)
    renamed = first.path.rename(home / "split-00001-of-90000.gguf")
    with pytest.raises(ModelFileError, match="one part of 2 and not named so"):
        list_parts(inspect(renamed))


def test_the_table_of_types_is_that_of_gguf_py(
    monkeypatch: pytest.MonkeyPatch, lacking: Callable[[str], NoReturn]
) -> None:
    source = builds.find_source() or lacking("llama.cpp's source is not here")
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
    assert {
        int(kind): kind.name.removeprefix("ALL_").removeprefix("MOSTLY_")
        for kind in constants.LlamaFileType
        if kind.name != "GUESSED"
    } == FILE_TYPES
