"""Fine-tuning on the embedded model: what is learnt, what is kept, and that a run goes on."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import threading
import time
import weakref
from dataclasses import replace
from pathlib import Path
from subprocess import Popen
from typing import Any

import huggingface_hub
import numpy as np
import peft
import pytest
import tiny_llama
import torch
from hub_server import serve_hub
from huggingface_hub import constants
from outside import environment, run_python
from safetensors.torch import load_file
from shopping import INSTRUCTION, make_sets

from qwqlab.cli import main
from qwqlab.errors import BusyError, ChatError, FetchError, ModelFileError, SettingError
from qwqlab.llamacpp import Loading
from qwqlab.models import Conversation, TransformersTokenizer, fetch, requantize
from qwqlab.paths import data_dir
from qwqlab.quant import BnbCodec, Checkpoint, list_linears, load_quantised, make_skip_list
from qwqlab.sampling import Engine, Request, Sampling
from qwqlab.tuning import (
    Example,
    FineTuned,
    Recipe,
    Turn,
    compare_with_peft,
    encode,
    engines,
    export_adapter,
    find_examples,
    finetune,
    label,
    measure_skill,
    measure_stopping,
    merge_adapter,
    read_examples,
    render_turns,
    score,
    training,
)

QUICK = Recipe(steps=4, accumulation=1, warm_up=1, checkpointing=False)
EXAMPLES = make_sets()["train"]


@pytest.fixture(scope="module")
def checkpoint(model_path: Path) -> Checkpoint:
    return Checkpoint(model_path)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Two layers with a random head, for what needs no good model."""
    return Checkpoint(tiny_llama.make_in_bytes(tmp_path_factory.mktemp("tiny") / "model"))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """QwQ-32B's own, in transformers."""
    return TransformersTokenizer("qwq-32b").tokenizer


@pytest.fixture(scope="module")
def trained(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> FineTuned:
    quick = QUICK.with_(steps=2, batch=1)
    return finetune(checkpoint, EXAMPLES, tmp_path_factory.mktemp("run") / "whole", quick)


def test_the_sets_in_data_are_those_that_the_skill_makes() -> None:
    for name, examples in make_sets().items():
        assert read_examples(data_dir() / "shopping" / f"{name}.jsonl") == examples
    held_out = read_examples(data_dir() / "shopping" / "held_out.jsonl")
    assert (data_dir() / "shopping" / "prompt.txt").read_text() == held_out[0].prompt
    sets = {name: {e.input for e in examples} for name, examples in make_sets().items()}
    assert len(sets["train"]) >= 300
    assert not sets["train"] & (sets["held_out"] | sets["new_goods"])


@pytest.mark.parametrize(
    ("answer", "json_", "right"),
    [
        ('{"eggs": 2, "hats": 1}', True, True),
        ('\n{"hats": 1, "eggs": 2} ', True, True),
        ('{"eggs": 3, "hats": 1}', True, False),
        ('{"eggs": 2}', True, False),
        ('{"eggs": 2, "hats": 1', False, False),
        ("[" * 100_000, False, False),
        ("", False, False),
    ],
)
def test_an_answer_is_scored_for_what_it_is(answer: str, json_: bool, right: bool) -> None:
    found = score(answer, Example(INSTRUCTION, "Two eggs and a hat.", '{"eggs": 2, "hats": 1}'))
    assert (found.is_json, found.is_right) == (json_, right)


def _chat(**answer: Any) -> str:
    """A line of a file of chats."""
    question = {"role": "user", "content": "a"}
    return json.dumps({"messages": [question, {"role": "assistant", **answer}]})


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"instruction": "a", "output": "b"}\n{"instruction": 3}\n', "line 2: instruction is int"),
        ('{"instruction": "a", "output": " "}', "line 1: output is missing or empty"),
        ('{"instruction": "a", "input": "", "output": null}', "line 1: output is missing or empty"),
        ('{"output": "b"}', "line 1: instruction is missing"),
        ('{"instruction": "a",', "line 1: not JSON"),
        ("[1]", "example 1: not an object"),
        ("", "holds no examples"),
        ('{"messages": []}', "line 1: messages is empty"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "no message of the role assistant"),
        ('{"messages": [{"role": "human", "content": "a"}]}', "its roles are human"),
        ('{"conversations": [{"from": "human", "value": "a"}]}', "is in ShareGPT's form; write"),
        ('[{"messages": [{"role": "assistant", "content": "a"}]}]', "example 1: no message of"),
        (_chat(content=None), r"line 1: messages\[1\] has no content that is text"),
        (_chat(content="b") + '\n{"instruction": "a", "output": "b"}', "line 2: messages is not"),
        (_chat(content="b", reasoning_content="c"), r"messages\[1\] has reasoning_content, which"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(text)
    with pytest.raises(SettingError, match=what) as caught:
        find_examples(path)
    assert str(path) in str(caught.value)


def test_a_list_and_lines_are_read_alike(tmp_path: Path) -> None:
    row = {"instruction": "Say a.", "input": "", "output": "a", "more": 1}
    lines, whole = tmp_path / "lines.jsonl", tmp_path / "list.json"
    lines.write_text(f"{json.dumps(row)}\n\n{json.dumps(row)}\n")
    whole.write_text(json.dumps([row, row]))
    assert read_examples(lines) == read_examples(whole) == [Example("Say a.", "", "a")] * 2
    lines.write_text('{"instruction": "a", "input": null, "output": "b"}')
    assert read_examples(lines) == [Example("a", "", "b")]
    lines.write_bytes('{"instruction": "a", "output": "b"}'.encode("utf-16"))
    with pytest.raises(SettingError, match=r"lines\.jsonl is not text in UTF-8; save it"):
        read_examples(lines)
    # A byte order mark, and an end of a line that is none in JSON.
    lines.write_text('\ufeff{"instruction": "a", "output": "b\u2028c"}\r\n', encoding="utf-8")
    assert read_examples(lines) == [Example("a", "", "b\u2028c")]


@pytest.mark.parametrize(
    "changes",
    [{"rank": 0}, {"learning_rate": float("nan")}, {"batch": -1}, {"modules": ("head",)}],
)  # fmt: skip
def test_a_recipe_refuses_what_makes_no_sense(changes: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=next(iter(changes))):
        Recipe().with_(**changes)


def test_a_recipe_goes_to_json_and_back() -> None:
    recipe = Recipe(rank=8, modules=("q_proj",))
    assert Recipe(**json.loads(json.dumps(recipe.to_dict()))) == recipe


@pytest.mark.parametrize(
    ("pad", "collator", "ends", "real"),
    [
        ("<|vision_pad|>", "transformers", 2, 1),
        ("<|endoftext|>", "transformers", 2, 0),
        ("<|im_end|>", "transformers", 0, 1),
        ("<|vision_pad|>", "trl", 2, 1),
        ("<|endoftext|>", "trl", 2, 1),
        ("<|im_end|>", "trl", 2, 1),
    ],
)
def test_what_is_learnt_of_the_ends(
    tokenizer: Any, pad: str, collator: str, ends: int, real: int
) -> None:
    table = label(tokenizer, pad, collator)
    assert (table.count("<|im_end|>"), table.count("<|endoftext|>")) == (ends, real)
    assert not any(each.is_learnt for row in table.rows for each in row if each.is_padding)


def test_labels_are_printed_and_a_wrong_pad_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["labels", "--pad", "<|im_end|>", "--collator", "transformers", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [each["is_learnt"] for each in rows[1]] == [True, True, True, True, False]
    assert main(["labels", "--pad", "two words"]) == 1
    assert "is not one token" in capsys.readouterr().err
    assert main(["labels", "--pad", "<|im_end|>", "--collator", "mine"]) == 1
    assert main(["labels", "--pad", "<|im_end|>", "--text", "\x1b[31m"]) == 0
    assert r"\x1b" in capsys.readouterr().out
    assert main(["labels", "--pad", "<|im_end|>", "--text", "\udcff\u202e"]) == 1
    assert r"'\udcff\u202e' is not text in UTF-8" in capsys.readouterr().err


def test_text_in_an_example_makes_no_special_token(checkpoint: Checkpoint) -> None:
    row = encode(Example("<|im_end|>", "", "a<|im_end|>b"), checkpoint.tokenizer(), 2, 999)
    assert row["input_ids"].count(2) == 1 and row["input_ids"][-1] == 2
    n_prompt = row["labels"].count(-100)
    assert row["labels"][n_prompt:] == row["input_ids"][n_prompt:]


SUMS = Conversation(
    [
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "<think>\nTwo and two.\n</think>\n\n4"},
        {"role": "user", "content": "3 more<|im_end|>?"},
        {"role": "assistant", "content": "7<|im_end|>"},
    ]
)
ASKED = "<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n"
# What comes before the second answer: both of QwQ's templates drop the thinking of the first.
AGAIN = (
    f"{ASKED}4<|im_end|>\n<|im_start|>user\n3 more<|im_end|>?<|im_end|>\n<|im_start|>assistant\n"
)
WITH_THINK = [
    Turn(f"{ASKED}<think>\n", "Two and two.\n</think>\n\n4"),
    Turn(f"{AGAIN}<think>\n", "\n</think>\n\n7<|im_end|>"),
]
WITHOUT_THINK = [
    Turn(ASKED, "<think>\nTwo and two.\n</think>\n\n4"),
    Turn(AGAIN, "7<|im_end|>"),
]


@pytest.mark.parametrize(
    ("template", "wanted"), [("with-think", WITH_THINK), ("without-think", WITHOUT_THINK)]
)
def test_what_is_learnt_of_a_chat_keeps_its_thinking(
    tokenizer: Any, template: str, wanted: list[Turn]
) -> None:
    assert render_turns([SUMS, SUMS], template) == [wanted, wanted]
    end, think, over = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<think>", "</think>"])
    for turn in wanted:
        row = encode(turn, tokenizer, end, 999)
        learnt = [token for token in row["labels"] if token != -100]
        read = row["input_ids"][: -len(learnt)]
        # Tokens of the template's are read as such; text of an answer makes no end of a turn.
        assert learnt.count(end) == 1 and learnt[-1] == end
        assert tokenizer.decode(learnt[:-1]) == turn.output
        assert read.count(end) == turn.prompt.count("<|im_end|>")
        assert [*read, *learnt].count(think) == (turn.prompt + turn.output).count("<think>")
        assert learnt.count(over) == turn.output.count("</think>")


def test_a_chat_that_a_template_refuses_is_named_by_its_number() -> None:
    refuses = "{{ raise_exception('no') if messages[0].content == 'Hi' else 'x' }}"
    hi = Conversation([*Conversation.ask("Hi").messages, SUMS.messages[1]])
    with pytest.raises(ChatError, match=r"^example 203: the template fails .* no$"):
        render_turns([*[SUMS] * 202, hi, SUMS], refuses)


def test_a_run_on_chats_learns_each_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Checkpoint
) -> None:
    data = tmp_path / "chats.jsonl"
    data.write_text(f"{json.dumps({'messages': SUMS.messages})}\n{_chat(content='b')}\n")
    chats = find_examples(data)
    with pytest.raises(SettingError, match="has no chat template; give it examples with"):
        finetune(tiny, chats, tmp_path / "no", QUICK)
    folder = tmp_path / "model"
    shutil.copytree(tiny.path, folder)
    shutil.copy(data_dir() / "templates" / "with-think.jinja", folder / "chat_template.jinja")
    recipe = QUICK.with_(steps=1, batch=3)
    found = finetune(folder, chats, tmp_path / "run", recipe)
    assert found.steps[0].stops == 3
    # The second answer's prompt alone is longer than that.
    with pytest.raises(SettingError, match="example 1: its prompt takes all of max_tokens=90"):
        finetune(folder, chats, tmp_path / "cut", recipe.with_(max_tokens=90))


def test_the_tokenizer_of_a_gguf_has_the_files_own_ends(checkpoint: Checkpoint) -> None:
    tokenizer = checkpoint.tokenizer()
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)


def test_alpaca_comes_from_the_hub_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    rows = [{"instruction": f"Say {n}.", "input": "", "output": str(n)} for n in range(40)]
    silent = {"instruction": "Say nothing.", "input": "", "output": ""}
    with serve_hub() as hub:
        text = json.dumps([*rows, silent]).encode()
        hub.add("yahma/alpaca-cleaned", {"alpaca_data_cleaned.json": text, "README.md": b"-"})
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        found = find_examples("alpaca-cleaned")
        asked = [seen.path for seen in hub.log]
        assert find_examples("alpaca-cleaned") == found and len(hub.log) == len(asked)
    assert found == [Example(**row) for row in rows]
    # huggingface_hub asks for the first by itself where an agent runs it.
    others = [path for path in asked if "agent-harnesses" not in path and "/blobs/" not in path]
    assert others and all("/datasets/yahma/alpaca-cleaned/" in path for path in others)
    # Where every other program that uses the hub's cache looks for it, too.
    kept = huggingface_hub.try_to_load_from_cache(
        "yahma/alpaca-cleaned", "alpaca_data_cleaned.json", str(tmp_path), repo_type="dataset"
    )
    assert isinstance(kept, str) and Path(kept).read_bytes() == text


def test_alpaca_without_a_network_and_a_set_that_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FetchError, match=r"yahma/alpaca-cleaned .* is not complete in"):
        find_examples("alpaca-cleaned")
    with pytest.raises(SettingError, match=r"alpaca is no file, and no set: these are shopping"):
        find_examples("alpaca")
    assert find_examples("shopping") == EXAMPLES


def test_a_catalogued_model_in_4_bits_is_found_by_its_name_and_trained(
    tiny: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = tmp_path / "packed"
    load_quantised(tiny, ["lm_head"], BnbCodec(double=True)).save_pretrained(packed)
    tiny.tokenizer().save_pretrained(packed)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with serve_hub() as hub:
        contents = {file.name: file.read_bytes() for file in packed.iterdir()}
        hub.add("unsloth/QwQ-32B-unsloth-bnb-4bit", contents)
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        fetch("QwQ-32B:dynamic-4bit")
        args = "--model QwQ-32B:dynamic-4bit --steps 1 --accumulation 1 --max-tokens 400 --json"
        out = tmp_path / "out.json"
        assert main(["finetune", "--out", str(tmp_path / "run"), *args.split(), str(out)]) == 0
    values = json.loads(out.read_text())
    assert values["whole"] and values["recipe"]["max_tokens"] == 400


def test_a_model_that_is_in_4_bits_already_is_trained_as_it_is(
    tiny: Checkpoint, tmp_path: Path
) -> None:
    keep = ("model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj")
    skip = make_skip_list(keep, list_linears(tiny.skeleton()))
    packed = tmp_path / "packed"
    load_quantised(tiny, skip, BnbCodec(double=True)).save_pretrained(packed)
    tiny.tokenizer().save_pretrained(packed)
    recipe = QUICK.with_(steps=2)
    own = finetune(packed, EXAMPLES[:8], tmp_path / "own", recipe, "peft")
    same = finetune(tiny, EXAMPLES[:8], tmp_path / "same", recipe, "peft", keep=keep)
    assert own.kept == same.kept == keep
    assert own.losses == same.losses
    with pytest.raises(SettingError, match="is in 4 bits already: leave `keep` out"):
        finetune(packed, EXAMPLES, tmp_path / "no", recipe, "peft", keep=keep[:1])
    config = packed / "config.json"
    values = json.loads(config.read_text())
    values["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    config.write_text(json.dumps(values))
    with pytest.raises(ModelFileError, match="is quantised by 'gptq', not to 4 bits"):
        finetune(packed, EXAMPLES, tmp_path / "no", recipe, "peft")


@pytest.mark.slow
def test_a_run_says_what_it_did(trained: FineTuned) -> None:
    values = json.loads(json.dumps(trained.to_dict()))
    assert values["engine"] == "peft" and values["whole"]
    assert len(values["losses"]) == len(values["step_seconds"]) == 2
    # One example a step, each with one end.
    assert values["stop_labels_kept"] == 2
    assert values["trained_tokens"] > 8 and values["peak_memory_bytes"] > 10**8


def test_a_stopped_or_killed_run_goes_on_as_if_nothing_had_been(
    tiny: Checkpoint, tmp_path: Path
) -> None:
    told: list[int] = []
    folder, examples = tmp_path / "run", EXAMPLES[:16]
    whole = finetune(tiny, examples, tmp_path / "whole", QUICK)

    def go_on(last: int = 99) -> FineTuned:
        def die(done: int, *_: Any) -> None:
            told.append(done)
            if done == last:
                raise SystemExit

        return finetune(tiny, examples, folder, QUICK, on_step=die, stop=lambda: not told)

    first = finetune(tiny, examples, folder, QUICK, stop=lambda: True)
    assert not first.whole and first.adapter is None and len(first.losses) == 1
    told.append(1)
    with pytest.raises(SystemExit):  # after a step, before its checkpoint
        go_on(last=3)
    # A line that was cut short, as by a kill.
    with (folder / training.STEPS).open("a") as file:
        file.write('{"step": 4, "lo')
    second = go_on()
    assert second.losses == whole.losses and told == [1, 2, 3, 3, 4]
    assert whole.losses[-1] < whole.losses[0]
    assert whole.adapter and second.adapter
    # An adapter that was not written is made of the last checkpoint, and no step is run again.
    shutil.rmtree(second.adapter)
    third = go_on()
    assert third.losses == whole.losses and told == [1, 2, 3, 3, 4] and third.adapter
    name = "adapter_model.safetensors"
    own, other = (load_file(Path(each) / name) for each in (whole.adapter, third.adapter))
    assert own.keys() == other.keys() and all(torch.equal(own[key], other[key]) for key in own)
    assert any(bool(value.any()) for key, value in own.items() if "lora_B" in key)
    with pytest.raises(SettingError, match="holds a run with other steps"):
        finetune(tiny, examples, folder, QUICK.with_(steps=5))


SCRIPT = """
import sys
from qwqlab.tuning import Recipe, find_examples, finetune
recipe = Recipe(**{recipe})
finetune({model!r}, find_examples("shopping"), {folder!r}, recipe, "peft")
"""


def test_an_example_of_which_nothing_is_learnt_is_named(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    short = QUICK.with_(max_tokens=40)  # no prompt has so few
    with pytest.raises(SettingError, match="example 1: its prompt takes all of max_tokens=40"):
        finetune(checkpoint, EXAMPLES, tmp_path / "run", short)


def test_a_killed_process_loses_no_step_that_was_finished(tiny: Checkpoint, tmp_path: Path) -> None:
    folder, recipe = tmp_path / "run", QUICK.with_(steps=200)  # with a checkpoint every 50
    script = SCRIPT.format(recipe=recipe.to_dict(), model=str(tiny.path), folder=str(folder))
    process = Popen([sys.executable, "-c", script])
    while len(training.read_steps(folder)) < 60 and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    known = training.read_steps(folder)
    assert not (folder / "adapter").exists() and 60 <= len(known) < 200
    told: list[int] = []

    def stop() -> bool:
        return len(told) > 9

    again = finetune(
        tiny, EXAMPLES, folder, recipe, "peft", stop=stop, on_step=lambda n, *_: told.append(n)
    )
    assert told[0] > 50 and told[0] % 50 == 1  # from the last checkpoint
    assert again.losses[:60] == [step.loss for step in known[:60]]


# Which hosts a run of one step looks up or connects to, as JSON.
LISTEN = """
import json, sys
from pathlib import Path

asked = []


def note(event, args):
    if event == "socket.getaddrinfo":
        asked.append(str(args[0]))
    elif event == "socket.connect" and isinstance(args[1], tuple):
        asked.append(str(args[1][0]))


sys.addaudithook(note)
import tiny_llama
from qwqlab.tuning import Recipe, find_examples, finetune

folder = Path(sys.argv[1])
model = tiny_llama.make_in_bytes(folder / "model")
recipe = Recipe(steps=1, accumulation=1, checkpointing=False)
finetune(model, find_examples("shopping")[:2], folder / "run", recipe)
print(json.dumps(asked))
"""


@pytest.mark.nightly  # whom a notebook's kernel asks, its training's too, is looked at in the book
def test_a_run_tells_nobody_of_it(tmp_path: Path) -> None:
    # TRL tells the hub of each trainer that is made, but not in continuous integration.
    env = {name: value for name, value in environment().items() if name != "CI"}
    done = run_python(LISTEN, tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_a_step_must_be_one_that_the_processes_can_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(SettingError, match="accumulation=4 can't be shared by 3 processes"):
        engines.share_accumulation(4)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert engines.share_accumulation(4) == 2


@pytest.mark.nightly  # notebook 08 compares both, and merges
@pytest.mark.slow
def test_an_adapter_predicts_in_llama_cpp_what_it_does_in_peft(
    trained: FineTuned, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert trained.adapter
    # What changes peft in this process, as unsloth does, does not reach the comparison.
    monkeypatch.setattr(peft, "PeftModel", None)
    gguf = export_adapter(trained.adapter, tmp_path / "adapter.gguf", checkpoint)
    text = EXAMPLES[0].prompt
    (found,) = compare_with_peft(trained.adapter, gguf, checkpoint, [text])
    assert found.difference < 1e-4 and found.effect > 0.5
    # llama-export-lora writes F16, which holds the weights to 2^-11.
    plain = requantize(checkpoint.path, "F32")
    exact = Loading(n_ctx=256, flash_attn="off", cache_type_k="f32", cache_type_v="f32")
    with_adapter = replace(exact, lora=(str(gguf),))
    merged = merge_adapter(gguf, plain, tmp_path / "merged.gguf")
    wanted = _logits(plain, with_adapter, text)
    assert np.abs(wanted - _logits(merged, exact, text)).max() < found.effect / 5


def _logits(file: Path, loading: Loading, text: str) -> Any:
    kept: dict[int, Any] = {}
    with Engine(file, loading) as engine:
        list(engine.run([Request(text, Sampling(temp=0), 1, 1)], keep_logits=kept))
    return kept[0][0]


def test_what_is_no_adapter_is_refused(model_path: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(ModelFileError, match=r"holds no adapter_model\.safetensors"):
        export_adapter(tmp_path, tmp_path / "out.gguf", model_path)
    with pytest.raises(ModelFileError, match="no-such"):
        Engine(model_path, Loading(lora=(str(tmp_path / "no-such.gguf"),)))
    with pytest.raises(ModelFileError, match=r"lora|adapter"):
        Engine(model_path, Loading(lora=(str(model_path),)))


@pytest.mark.nightly
def test_what_the_script_can_not_read_is_no_adapter(model_path: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelFileError, match="is no adapter that"):
        export_adapter(tmp_path, tmp_path / "out.gguf", model_path)
    assert not (tmp_path / "out.gguf").exists()


def test_a_forward_pass_in_eval_mode_changes_no_gradient(tiny: Checkpoint) -> None:
    row = encode(EXAMPLES[0], tiny.tokenizer(), 2, 512)
    batch = {name: torch.tensor([values]) for name, values in row.items()}
    codec, recipe = BnbCodec("nf4", True), QUICK

    def gradient(model: Any) -> torch.Tensor:
        model.zero_grad()
        model(**batch).loss.backward()
        found: torch.Tensor = next(p.grad for n, p in model.named_parameters() if "lora_B" in n)
        return found.clone()

    model = engines.load_peft(tiny, (), codec, recipe)
    before = gradient(model)
    model.eval()
    with torch.inference_mode():
        model(input_ids=batch["input_ids"])
    model.train()
    assert torch.equal(gradient(model), before) and before.abs().max() > 0


def test_what_can_not_be_trained_is_one_sentence(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    for what, options in (
        ("no examples", {"examples": []}),
        ("no type of bitsandbytes", {"codec": "Q4_0"}),
        ("engine='jax'", {"engine": "jax"}),
        ("not one token", {"pad": "two words"}),
        ("collator='mine'", {"collator": "mine"}),
    ):
        given: dict[str, Any] = {"examples": EXAMPLES, "recipe": QUICK, **options}
        with pytest.raises(SettingError, match=what):
            finetune(checkpoint, folder=folder, **given)
    assert not folder.exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    with pytest.raises(SettingError, match="is not empty and holds no run"):
        finetune(checkpoint, EXAMPLES, tmp_path / "full", QUICK)
    with pytest.raises(SettingError, match=r"letter\.txt is a file; name a folder, a new one"):
        finetune(checkpoint, EXAMPLES, tmp_path / "full" / "letter.txt", QUICK)
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(SettingError, match="unsloth does not run here: it is not installed"):
        finetune(checkpoint, EXAMPLES, folder, QUICK, engine="unsloth")
    assert engines.find_engine("auto").name == "peft"


def test_a_run_that_does_not_fit_is_refused_with_the_ledgers_figure(
    checkpoint: Checkpoint,
    tiny: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(engines, "free_on_device", lambda: 5 * 10**8)
    says = r"takes \d\.\d GB of memory, 0\.1 of them for its weights, and 0\.5 GB are free on .+;"
    with pytest.raises(SettingError, match=says):
        finetune(checkpoint, EXAMPLES, tmp_path / "run", QUICK)
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(engines, "free_on_device", lambda: 0)
    run = ["finetune", "--model", str(tiny.path), "--steps", "1", "--batch", "1"]
    run += ["--accumulation", "1", "--out", str(tmp_path / "run")]
    assert main(run) == 1
    assert "switch this check off (--memory-check off)" in capsys.readouterr().err
    assert main([*run, "--memory-check", "off"]) == 0


def test_a_run_for_which_memory_ran_out_is_one_sentence_and_leaves_it_free(
    tiny: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: list[Any] = []
    load = engines.load_peft

    def note(*args: Any) -> Any:
        assert not [each for each in models if each() is not None]
        models.append(weakref.ref(model := load(*args)))
        return model

    def overflow(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.32 GiB.")

    monkeypatch.setattr(engines, "load_peft", note)
    quick = QUICK.with_(steps=1, batch=1)
    with pytest.raises(SettingError, match="ran out of memory while model was trained; take"):
        finetune(tiny, EXAMPLES, tmp_path / "first", quick, on_step=overflow)
    assert finetune(tiny, EXAMPLES, tmp_path / "second", quick).whole and len(models) == 2


def test_one_model_is_trained_at_a_time(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with training._training, pytest.raises(BusyError, match="press its Stop"):
        finetune(checkpoint, EXAMPLES, tmp_path / "run", QUICK)
    assert not (tmp_path / "run").exists()


def test_a_model_made_beside_a_skeleton_has_its_weights(tiny: Checkpoint) -> None:
    over = threading.Event()

    def build() -> None:
        while not over.is_set():
            tiny.skeleton()

    thread = threading.Thread(target=build)
    thread.start()
    try:
        for _ in range(5):
            assert not any(each.is_meta for each in tiny.load().parameters())
    finally:
        over.set()
        thread.join()


@pytest.mark.slow
def test_stopping_is_the_share_of_the_end_token(model_path: Path) -> None:
    examples = make_sets()["held_out"][:2]
    with Engine(model_path, Loading(n_ctx=256)) as engine:
        found = measure_stopping(engine, examples, n_seeds=2, n_predict=8)
        assert (found.n, len(found.p_stop)) == (4, 2)
        assert 0 <= found.stopped <= 4 and found.interval[0] >= 0
        # Where the end is the likeliest token, greedy decoding stops there, and elsewhere not.
        for example, share in zip(examples, found.p_stop, strict=True):
            run = engine.generate(example.prompt + example.output, Sampling(temp=0), 1, 1)
            assert (run.stop == "end") == (share > 0.5) or 0.3 < share < 0.5
        skill = measure_skill(engine, examples)
    assert skill.n == len(skill.answers) == 2 and 0 <= skill.right <= skill.json <= 3
