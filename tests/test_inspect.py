"""`qwqlab inspect` and `qwqlab tokenize`, on sound, broken and hostile files."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from malformed import Gguf, Raw, sound, u32, u64, with_key

from qwqlab import paths
from qwqlab.cli import main
from qwqlab.errors import ModelFileError
from qwqlab.experiments import read_corpus
from qwqlab.models import build_qwq, read_description, show_description

KEYS = ("architecture", "tensors", "types", "context", "eos", "pad", "template", "warnings")


def read(out: str) -> Any:
    """JSON as the standard has it, without NaN and Infinity."""

    def refuse(name: str) -> None:
        pytest.fail(f"{name} is not JSON")

    return json.loads(out, parse_constant=refuse)


def mutate(rng: random.Random, whole: bytes, header: int) -> bytes:
    data = bytearray(whole)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(header)
        action = rng.randrange(6)
        if action == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif action == 1:
            data[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
        elif action == 2:
            data[at : at + 8] = rng.choice([u64(1 << 63), u64((1 << 64) - 1), u64(1 << 33)])
        elif action == 3:
            data[at : at + 4] = u32(rng.choice([0, 6, 8, 9, 12, 0x7F800000, 0x7FC00000]))
        elif action == 4:
            data[at:at] = rng.randbytes(rng.randint(1, 9))
        else:
            del data[at : at + rng.randint(1, 40)]
    return bytes(data)


def test_the_embedded_models_header_is_told(
    model_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(model_path), "--json"]) == 0
    values = read(capsys.readouterr().out)
    assert set(KEYS) <= set(values)
    assert values["architecture"] == "llama"
    assert values["tensors"] == {"count": 272, "by_type": {"Q4_1": 210, "F32": 61, "Q8_0": 1}}
    assert list(values["types"]) == ["Q4_1", "Q8_0", "F32"]
    assert sum(values["types"].values()) < values["bytes"] == model_path.stat().st_size
    assert (values["context"], values["eos"], values["pad"]) == (8192, 2, 2)
    assert "<|im_start|>" in values["template"]
    (warning,) = values["warnings"]
    assert warning.startswith("The pad token is also the eos token, 2")
    assert main(["inspect", "smollm2-135m"]) == 0
    text = capsys.readouterr().out
    assert "134,515,008 in 272 tensors" in text
    assert warning in text


def test_a_vocabulary_is_told_as_one_that_cannot_generate(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["inspect", str(build_qwq() / "vocab.gguf"), "--json"]) == 0
    values = read(capsys.readouterr().out)
    assert (values["eos"], values["pad"], values["context"]) == (151_645, 151_654, 131_072)
    assert values["vocabulary"]["tokens"] == 152_064
    assert any("holds no tensors" in warning for warning in values["warnings"])


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ([("tokenizer.ggml.eos_token_id", 7)], "The eos token is 7, but the vocabulary has 3"),
        ([("tokenizer.ggml.padding_token_id", 3)], "The pad token is 3, but the vocabulary has 3"),
        ([], "names no eos token"),
        ([("split.count", 3)], "not named so"),
    ],
)
def test_what_is_odd_in_a_header_is_a_warning(
    keys: list[tuple[str, Any]], says: str, tmp_path: Path
) -> None:
    made = sound()
    made.keys.extend(keys)
    path = tmp_path / "odd.gguf"
    path.write_bytes(made.build())
    values = read_description(path)
    assert any(says in warning for warning in values["warnings"])
    assert says in show_description(values)


def test_an_empty_header_is_told_with_all_that_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "empty.gguf"
    path.write_bytes(Gguf().build())
    warnings = " ".join(read_description(path)["warnings"])
    for lack in ("architecture", "no tensors"):
        assert lack in warnings


def test_numbers_that_json_lacks_and_arrays_are_told_as_it_can(tmp_path: Path) -> None:
    made = with_key("llama.rope.scale", float("inf"))
    made.keys.append(("llama.rope.sections", [1, 2, 3]))
    made.keys.append(("llama.rope.factors", Raw(9, u32(6) + u64(1) + u32(0x7FC00000))))
    path = tmp_path / "odd.gguf"
    path.write_bytes(made.build())
    rope = read(json.dumps(read_description(path)))["rope"]
    assert (rope["scale"], rope["sections"], rope["factors"]) == ("inf", [1, 2, 3], ["nan"])


def test_1000_mutations_of_a_header_give_json_or_one_sentence(tmp_path: Path) -> None:
    made = sound()
    made.keys.extend([("tokenizer.ggml.eos_token_id", 2), ("llama.rope.list", [1, 2])])
    whole = made.build()
    header = whole.index(b"output.weight") + 60
    rng = random.Random(3407)
    path = tmp_path / "mutated.gguf"
    ends: Counter[str] = Counter()
    for _ in range(1000):
        path.write_bytes(mutate(rng, whole, header))
        try:
            values = read_description(path)
        except ModelFileError as error:
            assert "\n" not in str(error)
            ends["refused"] += 1
        else:
            assert read(json.dumps(values)).keys() == values.keys()
            assert all(line.isprintable() for line in show_description(values).split("\n"))
            ends["told"] += 1
    assert ends["told"] > 50
    assert ends["refused"] > 300


def test_text_from_a_file_does_not_reach_a_terminal_unescaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = sound()
    made.keys[1] = ("general.name", "\x1b[31mred\nsecond line")
    made.keys[6] = ("tokenizer.ggml.model", "\x1b]0;title\x07")
    path = tmp_path / "red.gguf"
    path.write_bytes(made.build())
    assert main(["inspect", str(path)]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_a_folder_is_checked_for_its_stops(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copy(build_qwq() / name, tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({**config, "pad_token": "<|im_end|>"})
    )
    assert main(["inspect", str(tmp_path), "--json"]) == 1
    values = read(capsys.readouterr().out)
    assert values["pad"] == {"id": 151_645, "text": "<|im_end|>"}
    assert "The pad token is 151645 <|im_end|>" in values["findings"][0]["text"]


@pytest.mark.parametrize("engine", ["llama.cpp", "transformers"])
def test_tokenize_prints_the_ids_and_the_pieces(
    engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "turn.txt"
    file.write_bytes(b"<think>\r\n42<|im_end|>")
    args = ["tokenize", "--tokenizer", "qwq-32b", "--engine", engine, "--file", str(file)]
    assert main([*args, "--json"]) == 0
    values = read(capsys.readouterr().out)
    assert values == {
        "ids": [151_667, 319, 19, 17, 151_645],
        "pieces": ["<think>", "\r\n", "4", "2", "<|im_end|>"],
        "engine": engine,
        "tokenizer": "qwq-32b",
    }
    assert main(args) == 0
    assert capsys.readouterr().out == "151667 319 19 17 151645\n"
    assert main([*args, "--no-special"]) == 0
    assert capsys.readouterr().out == "151667 319 19 17 27 91 318 6213 91 29\n"


@pytest.mark.nightly  # each call loads the vocabulary anew; test_tokenizers compares the corpus
def test_tokenize_gives_the_same_ids_in_both_engines_on_the_corpus(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "text.txt"
    plain = [text for text in read_corpus() if not text.cause]
    assert len(plain) > 40
    for text in plain[::6]:
        file.write_bytes(text.text.encode())
        ids = []
        for engine in ("llama.cpp", "transformers"):
            args = ["tokenize", "--tokenizer", "qwq-32b", "--engine", engine, "--json"]
            assert main([*args, "--file", str(file)]) == 0
            ids.append(read(capsys.readouterr().out)["ids"])
        assert ids[0] == ids[1], text.name


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["inspect", "/no/such.gguf"], "There is no file /no/such.gguf"),
        (["inspect", "{data}"], "holds no model: it has none of config.json, tokenizer.json, "),
        (["inspect", "/dev/null"], "/dev/null is no plain file; give the path of a .gguf file"),
        (["inspect", "{data}/README.md"], "is not a GGUF file"),
        (["tokenize", "--tokenizer", "qwq-32b", "--file", "/no/such"], "/no/such cannot be read"),
        (["tokenize", "--tokenizer", "qwq-32b", "--file", "{tmp}/latin"], "is not text in UTF-8"),
        (["tokenize", "--tokenizer", "qwq-32b", "--file", "{tmp}"], "cannot be read"),
        (["tokenize", "--tokenizer", "qwq32b", "--file", "{tmp}/plain"], "at hand is qwq-32b."),
        (
            ["tokenize", "--tokenizer", "qwq-32b", "--engine", "x", "--file", "{tmp}/plain"],
            "engine='x' is not one of llama.cpp, transformers",
        ),
    ],
)
def test_what_cannot_be_judged_gives_2_and_a_sentence(
    args: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "latin").write_bytes("é".encode("latin-1"))
    (tmp_path / "plain").write_text("plain")
    assert main([arg.format(data=paths.data_dir(), tmp=tmp_path) for arg in args]) == 2
    said = capsys.readouterr()
    assert says in said.err
    assert (said.out, said.err.count("\n")) == ("", 1)
