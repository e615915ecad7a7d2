"""Pad and stop tokens of real, written and hostile models, and what a collator makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from malformed import sound

from qwqlab import paths
from qwqlab.errors import FetchError, ModelFileError
from qwqlab.models import (
    StopCheck,
    build_qwq,
    check_stops,
    import_transformers,
    read_template,
)
from qwqlab.models.qwq import ADDED

Write = Callable[..., Path]
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content"
    " + '<|im_end|>' + '\\n' }}{% endfor %}"
)
IDS = {token: place for place, token in enumerate(ADDED, start=1)}
END, PAD, OTHER = IDS["<|im_end|>"], IDS["<|vision_pad|>"], IDS["<|endoftext|>"]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A function that writes a small folder with QwQ's special tokens, and with other values."""

    def make(pad: str | None = "<|vision_pad|>", **files: Any) -> Path:
        plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        added = [
            {"id": IDS[token], "content": token, "special": special, **plain}
            for token, special in ADDED.items()
        ]
        token = None if pad is None else IDS[pad]
        values: dict[str, Any] = {
            "tokenizer": {
                "version": "1.0",
                "added_tokens": added,
                "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"},
            },
            "tokenizer_config": {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "pad_token": pad,
                "eos_token": "<|im_end|>",
                "chat_template": TEMPLATE,
            },
            "config": {
                "model_type": "qwen2",
                "transformers_version": "5.0",
                "eos_token_id": END,
                "pad_token_id": token,
                "vocab_size": 32,
            },
            "generation_config": {"eos_token_id": [END, OTHER], "pad_token_id": token},
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
    gguf = check_stops(build_qwq() / "vocab.gguf")
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
    check = check_stops(write(pad))
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(write(pad)))
    assert check.pad is not None
    assert tokenizer.pad_token_id == check.pad.id
    texts = ["a<|im_end|>", "a<|endoftext|><|im_end|>"]
    collate = transformers.DataCollatorForLanguageModeling(
        tokenizer, mlm=False, return_tensors="np"
    )
    batch = collate([tokenizer(text) for text in texts])
    learnt = set(batch["labels"].ravel().tolist())
    assert (END in learnt) == (pad != "<|im_end|>")
    assert (OTHER in learnt) == (pad != "<|endoftext|>")
    assert ("no end of a turn is ever learnt" in check.findings[0].text) == (END not in learnt)


@pytest.mark.parametrize(
    ("file", "values", "name", "says"),
    [
        ("config", {"vocab_size": 10}, "ids are in the", "and 10 rows in the embedding"),
        ("generation_config", {"eos_token_id": OTHER}, "files agree", "does not stop"),
        ("generation_config", {"eos_token_id": OTHER}, "turns end in", "which is no stop"),
        ("generation_config", {"pad_token_id": 5}, "files agree", "more than one pad token"),
    ],
)
def test_what_does_not_fit_together_is_named(
    file: str, values: dict[str, Any], name: str, says: str, write: Write
) -> None:
    path = write() / f"{file}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    check = check_stops(path.parent)
    assert [each for each in check.findings if not each.ok and each.name.startswith(name)]
    assert says in " ".join(each.text for each in check.findings)
    assert all("\n" not in each.text for each in check.findings)


def test_a_tokenizer_without_configurations_or_template_is_judged_by_what_there_is(
    write: Write,
) -> None:
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
    only = check_stops(write(config=None, generation_config=None, tokenizer_config=config))
    assert only.pad is None
    assert [stop.text for stop in only.stops] == ["<|im_end|>"]
    assert "there is no chat template" in only.findings[3].text


@pytest.mark.parametrize(
    ("template", "token"),
    [
        ("{% for m in messages %}[{{ m.content }}]<|video_pad|>{% endfor %}", "<|video_pad|>"),
        ("{% for m in messages %}<|im_end|>{{ m.content }}{% endfor %}", None),
        ("<|im_end|>", None),
        ("{{ raise_exception('no answers') }}<|im_end|>", None),
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
    ("file", "content", "says"),
    [
        ("tokenizer", "{", "transformers reads no tokenizer"),
        ("generation_config", "{", "generation_config.json is not JSON"),
        ("generation_config", "[1, 2]", "generation_config.json holds no JSON object"),
        ("generation_config", '{"eos_token_id": "x"}', "eos_token_id is x, which is no whole"),
        ("generation_config", '{"eos_token_id": [2, null]}', "which is no whole number"),
        ("generation_config", '{"pad_token_id": 1.5}', "pad_token_id is [1.5], which is no"),
        ("config", '{"vocab_size": "many"}', "vocab_size is ['many'], which is no whole number"),
    ],
)
def test_a_file_that_is_no_sound_json_is_refused(
    file: str, content: str, says: str, write: Write
) -> None:
    with pytest.raises(ModelFileError) as caught:
        check_stops(write(**{file: content}))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "nested",
    [
        {"model_type": "gemma3", "text_config": {"vocab_size": 10, "eos_token_id": OTHER}},
        {"model_type": "internvl_chat", "llm_config": {"vocab_size": 10, "eos_token_id": OTHER}},
        {"language_config": {"vocab_size": 10, "eos_token_id": [OTHER], "pad_token_id": None}},
        {"thinker_config": {"text_config": {"vocab_size": 10, "eos_token_id": OTHER}}},
    ],
    ids=["text", "llm", "language", "thinker"],
)
def test_a_configuration_is_read_where_it_describes_the_text(
    nested: dict[str, Any], write: Write
) -> None:
    check = check_stops(write(config=nested, generation_config=None))
    assert check.n_rows == 10
    assert [stop.id for stop in check.stops] == [OTHER]
    assert "ids are in the vocabulary" in failed(check) and "turns end in a stop" in failed(check)


def test_rows_that_a_configuration_leaves_to_its_architecture_are_known(write: Write) -> None:
    check = check_stops(write(config={"model_type": "gemma3", "text_config": {}}))
    assert check.n_rows == 262_208


def test_of_several_templates_the_default_is_read(write: Write) -> None:
    named = [
        {"name": "tool_use", "template": "{{ messages[-1].content }}<|video_pad|>"},
        {"name": "default", "template": TEMPLATE},
    ]
    config = {"pad_token": "<|vision_pad|>", "eos_token": "<|im_end|>", "chat_template": named}
    folder = write(tokenizer_config=config)
    found = [check_stops(folder)]
    assert "video_pad" in read_template(folder, tools=True)
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": None}))
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text(named[0]["template"])
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    found.append(check_stops(folder))
    assert [check.turn_end and check.turn_end.text for check in found] == ["<|im_end|>"] * 2
    assert read_template(folder) == TEMPLATE


def test_a_byte_order_mark_is_no_part_of_a_models_files(write: Write) -> None:
    folder = write()
    plain = check_stops(folder)
    for path in sorted(folder.iterdir()):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert check_stops(folder) == plain
    (folder / "tokenizer_config.json").write_bytes("{}".encode("utf-16"))
    with pytest.raises(ModelFileError, match=r"tokenizer_config\.json is not text in UTF-8"):
        check_stops(folder)


def test_what_holds_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"holds no model: .* give a folder"):
        check_stops(paths.data_dir())
    with pytest.raises(FetchError, match="no file"):
        check_stops(tmp_path / "absent.gguf")
    file = tmp_path / "tiny.gguf"
    file.write_bytes(sound().build())
    with pytest.raises(ModelFileError, match="cannot be loaded by llama"):
        check_stops(file)
