"""Pad and stop tokens of real, written and hostile models, and what a collator makes of them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from malformed import sound
from qwqlab.stop_files import LIMITS

from qwqlab import paths, qwq_vocab
from qwqlab.errors import FetchError, ModelFileError, QwqlabError
from qwqlab.stops import StopCheck, check_stops
from qwqlab.tokenizers import import_transformers

Write = Callable[..., Path]
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content"
    " + '<|im_end|>' + '\\n' }}{% endfor %}"
)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A function that writes QwQ's folder with this pad token, small, and with other values."""

    def make(pad: str | None = "<|vision_pad|>", **files: Any) -> Path:
        added = [
            {"id": qwq_vocab.id_of(token.text), "content": token.text, "special": token.special}
            for token in qwq_vocab.ADDED
        ]
        token = None if pad is None else qwq_vocab.id_of(pad)
        values: dict[str, Any] = {
            "tokenizer": {"added_tokens": added, "model": {"vocab": {"a": 0}}},
            "tokenizer_config": {
                "pad_token": pad,
                "eos_token": "<|im_end|>",
                "chat_template": TEMPLATE,
            },
            "config": {"eos_token_id": 151_645, "pad_token_id": token, "vocab_size": 152_064},
            "generation_config": {"eos_token_id": [151_645, 151_643], "pad_token_id": token},
            **files,
        }
        for name, value in values.items():
            path = tmp_path / f"{name}.json"
            path.unlink(missing_ok=True)
            if value is not None:
                path.write_text(value if isinstance(value, str) else json.dumps(value))
        return tmp_path

    return make


def failed(check: StopCheck) -> list[str]:
    return [finding.name for finding in check.findings if not finding.ok]


def test_the_embedded_model_pads_with_the_token_that_ends_its_turns(model_path: Path) -> None:
    check = check_stops(model_path)
    assert check.pad is not None
    assert check.pad == check.turn_end
    assert (check.pad.id, check.pad.text) == (2, "<|im_end|>")
    assert check.pad in check.stops
    assert failed(check) == ["pad is no stop"]
    assert "no end of a turn is ever learnt" in check.findings[0].text
    assert check.n_tokens == check.n_rows == 49_152


def test_qwqs_vocabulary_follows_the_articles_advice_in_both_forms() -> None:
    folder = check_stops("qwq-32b")
    gguf = check_stops(qwq_vocab.build() / "vocab.gguf")
    assert folder.ok
    assert gguf.ok
    assert folder.pad == gguf.pad
    assert {stop.id for stop in folder.stops} == {151_645, 151_643}
    assert {stop.text for stop in gguf.stops} > {stop.text for stop in folder.stops} | {"</s>"}
    assert gguf.n_tokens == folder.n_rows == 152_064
    assert (gguf.n_rows, folder.n_tokens) == (None, 151_669)


@pytest.mark.parametrize(
    ("pad", "wrong", "says"),
    [
        ("<|vision_pad|>", [], "is not one at which generation stops"),
        ("<|endoftext|>", ["pad is no stop", "the article's advice"], "only where a text itself"),
        ("<|im_end|>", ["pad is no stop", "the article's advice"], "no end of a turn is ever"),
        (None, ["pad is no stop", "the article's advice"], "No pad token is set"),
    ],
)
def test_each_of_the_articles_pad_tokens_gets_its_own_sentence(
    pad: str | None, wrong: list[str], says: str, write: Write
) -> None:
    check = check_stops(write(pad))
    assert failed(check) == wrong
    assert says in check.findings[0].text
    assert check.turn_end is not None
    assert check.turn_end.text == "<|im_end|>"


@pytest.mark.parametrize("pad", ["<|vision_pad|>", "<|endoftext|>", "<|im_end|>"])
def test_transformers_own_collator_masks_what_the_check_says(pad: str, write: Write) -> None:
    transformers = import_transformers()
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(qwq_vocab.build()))
    tokenizer.pad_token = pad
    check = check_stops(write(pad))
    assert check.pad is not None
    assert tokenizer.pad_token_id == check.pad.id
    texts = ["short<|im_end|>", "a longer one<|endoftext|><|im_end|>"]
    collate = transformers.DataCollatorForLanguageModeling(
        tokenizer, mlm=False, return_tensors="np"
    )
    batch = collate([tokenizer(text) for text in texts])
    learnt = set(batch["labels"].ravel().tolist())
    assert (151_645 in learnt) == (pad != "<|im_end|>")
    assert (151_643 in learnt) == (pad != "<|endoftext|>")
    assert ("no end of a turn is ever learnt" in check.findings[0].text) == (151_645 not in learnt)


@pytest.mark.parametrize(
    ("files", "name", "says"),
    [
        ({"config": {"vocab_size": 151_650}}, "ids are in the", "but there are 151650 rows in"),
        ({"generation_config": {"eos_token_id": 151_643}}, "files agree", "does not stop"),
        ({"generation_config": {"eos_token_id": 151_643}}, "turns end in", "which is no stop"),
        ({"generation_config": {"pad_token_id": 5}}, "files agree", "more than one pad token"),
        ({"config": {"pad_token_id": "x"}}, "value", "config.json pad_token_id is "),
        ({"config": {"eos_token_id": [True, -1]}}, "value", "which is no token id"),
        ({"config": {"eos_token_id": 1 << 40}}, "value", "which is no token id"),
        ({"tokenizer_config": {"pad_token": "<nowhere>"}}, "value", "is not in the vocabulary"),
    ],
)
def test_what_does_not_fit_together_is_named(
    files: dict[str, Any], name: str, says: str, write: Write
) -> None:
    write()
    for file, values in files.items():
        path = write() / f"{file}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    check = check_stops(path.parent)
    assert [each for each in check.findings if not each.ok and each.name.startswith(name)]
    assert says in " ".join(each.text for each in check.findings)
    assert all("\n" not in each.text for each in check.findings)


def test_a_folder_with_less_is_judged_by_what_there_is(write: Write) -> None:
    only = check_stops(write(tokenizer=None, tokenizer_config=None, generation_config=None))
    assert only.pad is not None
    assert (only.pad.id, only.pad.text, only.n_tokens) == (151_654, None, None)
    assert [stop.id for stop in only.stops] == [151_645]
    assert "there is no chat template" in only.findings[3].text
    bare = check_stops(write(tokenizer=None, config=None, generation_config=None))
    assert bare.pad is None
    assert "Nothing says how large the vocabulary is." in [each.text for each in bare.findings]


def test_tokens_are_found_in_older_files_as_well(write: Write) -> None:
    added = {token.text: qwq_vocab.id_of(token.text) for token in qwq_vocab.ADDED}
    decoder = {str(n): {"content": text, "special": True} for text, n in added.items()}
    config = {"pad_token": {"content": "<|vision_pad|>"}, "eos_token": "<|im_end|>"}
    old = check_stops(write(tokenizer=None, added_tokens=added, vocab={"a": 0}))
    assert old.pad is not None
    assert old.pad.text == "<|vision_pad|>"
    write(tokenizer=None, tokenizer_config={**config, "added_tokens_decoder": decoder})
    folder = write(
        tokenizer=None,
        added_tokens=None,
        vocab=None,
        tokenizer_config={**config, "added_tokens_decoder": decoder},
    )
    template = "{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}"
    (folder / "chat_template.jinja").write_text(template)
    new = check_stops(folder)
    assert new.ok
    assert new.turn_end is not None
    assert new.turn_end.text == "<|im_end|>"


@pytest.mark.parametrize(
    ("template", "token"),
    [
        ("{% for m in messages %}[{{ m.content }}]<|video_pad|>{% endfor %}", "<|video_pad|>"),
        ("{% for m in messages %}<|im_end|>{{ m.content }}{% endfor %}", None),
        ("<|im_end|>", None),
        ("{{ raise_exception('no answers') }}<|im_end|>", None),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", None),
    ],
)
def test_the_end_of_a_turn_is_what_the_template_writes_behind_an_answer(
    template: str, token: str | None, write: Write
) -> None:
    folder = write()
    (folder / "chat_template.jinja").write_text(template)
    found = check_stops(folder).turn_end
    assert (found.text if found else None) == token


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[1, 2]", "is not a JSON object"),
        ("[" * 200_000, "is not JSON"),
        ('{"a":' * 100_000, "is not JSON"),
        ('{"eos_token_id": ' + "9" * 5000 + "}", "config.json"),
        ("\ud83d\x00", "is not JSON"),
        ('"' + "x" * (5 << 20) + '"', "is longer than 4 MB"),
    ],
)
def test_a_file_that_is_no_sound_json_is_refused_or_named(
    content: str, says: str, write: Write
) -> None:
    folder = write()
    (folder / "config.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    try:
        said = " ".join(each.text for each in check_stops(folder).findings)
    except ModelFileError as error:
        said = str(error)
    assert says in said
    assert "\n" not in said


def test_whatever_stands_in_the_files_ends_in_a_check_or_a_sentence(write: Write) -> None:
    rng = random.Random(3407)
    keys = (
        "eos_token_id pad_token_id vocab_size eos_token pad_token model vocab content id special "
        "added_tokens added_tokens_decoder chat_template 151645 -1"
    ).split()
    leaves = [None, True, 0, -1, 151_645, 2**70, 1.5, float("nan"), "", "<|im_end|>", "9" * 40]

    def value(depth: int) -> Any:
        if depth == 0 or rng.random() < 0.4:
            return rng.choice(leaves)
        if rng.random() < 0.5:
            return [value(depth - 1) for _ in range(rng.randrange(4))]
        return {rng.choice(keys): value(depth - 1) for _ in range(rng.randrange(6))}

    checks = 0
    for _ in range(1500):
        names = [name.removesuffix(".json") for name in LIMITS]
        files = {
            name: {key: value(4) for key in rng.sample(keys, 6)}
            for name in sorted({"tokenizer_config", *rng.sample(names, rng.randrange(1, 7))})
        }
        try:
            check = check_stops(write(**files))
        except QwqlabError as error:
            assert "\n" not in str(error)
        else:
            json.dumps(check.to_dict())
            check.show()
            checks += 1
    assert checks > 800


def test_what_holds_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="give the folder of a model"):
        check_stops(tmp_path)
    with pytest.raises(FetchError, match="no file"):
        check_stops(tmp_path / "absent.gguf")
    file = tmp_path / "tiny.gguf"
    file.write_bytes(sound().build())
    with pytest.raises(ModelFileError, match="cannot be loaded by llama"):
        check_stops(file)


def test_the_data_folder_of_the_lab_is_no_model() -> None:
    with pytest.raises(ModelFileError):
        check_stops(paths.data_dir())
