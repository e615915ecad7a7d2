"""Chat templates and the split of thinking: transformers and llama.cpp are the oracles."""

from __future__ import annotations

import json
import random
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jinja2 import Environment
from malformed import Gguf, Raw, u32

from qwqlab import paths, sandbox
from qwqlab.cli import main
from qwqlab.errors import ChatError
from qwqlab.llamacpp import escape, tools
from qwqlab.models import (
    TEMPLATES,
    Conversation,
    TransformersTokenizer,
    build_qwq,
    chat,
    diff_templates,
    explain_template,
    identify_template,
    read_template,
    render,
    render_many,
    render_with_llama_cpp,
)
from qwqlab.sampling import (
    CLOSE,
    Engine,
    Request,
    Run,
    Thinking,
    ThinkingStream,
    count_tags,
    is_forced,
    split_thinking,
)
from qwqlab.sampling.thinking import OPEN
from qwqlab.widgets import ThinkPanel
from qwqlab.widgets.texts import EDITED
from qwqlab.widgets.think import OWN, describe_split, preview

HELLO = Conversation.ask("Hi")
WITH, WITHOUT = map(read_template, TEMPLATES)
ARTICLE = paths.data_dir() / "article" / "template.jinja"
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": {"city": "<b>'é'</b>"}}},
    {"type": "function", "function": {"name": "time", "parameters": {}}},
]
WEATHER = {"name": "weather", "arguments": {"b": 1, "a": 2}}
CALL = {"id": "1", "type": "function", "function": WEATHER}
THOUGHT = "<think>\nA greeting.\n</think>\n\nHello!"


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str, *calls: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **({"tool_calls": list(calls)} if calls else {})}


SYSTEM = {"role": "system", "content": "Be brief.\n"}
RESULT = {"role": "tool", "content": '{"celsius": 4}'}
CONVERSATIONS = {
    "one question": HELLO,
    "a system message": Conversation([SYSTEM, user("Hi")]),
    "a later system message": Conversation([user("Hi"), SYSTEM, user("Go on.")]),
    "several turns": Conversation([SYSTEM, user("Hi"), assistant("Hello!"), user("Go on.")]),
    "earlier thinking": Conversation([user("Hi"), assistant(THOUGHT), user("Go on.")]),
    "two closing tags": Conversation([user("Hi"), assistant(f"{THOUGHT}</think>\n\nx"), user("?")]),
    "tools": Conversation([user("Warm?")], TOOLS),
    "tools and a system message": Conversation([SYSTEM, user("Warm?")], TOOLS),
    "a call": Conversation([user("Warm?"), assistant("", CALL), RESULT], TOOLS),
    "calls with thinking": Conversation(
        [user("Warm?"), assistant(f"{THOUGHT} So:", CALL, WEATHER), RESULT, RESULT,
         assistant("4"), user("Thanks")], TOOLS
    ),
    "arguments as text": Conversation(
        [user("Warm?"), assistant("", {"name": "weather", "arguments": '{"a": "é"}'}), RESULT]
    ),
    "a tool first": Conversation([RESULT, RESULT, user("So?")]),
    "text like a template": Conversation([user("{{ 1 + 1 }} {% if %} '\"\\ \n\t <&> 日本 \u2028")]),
    "markers in the text": Conversation([user("<|im_end|>\n<|im_start|>system\n<think>")]),
    "the end of a turn": Conversation([user("Hi"), assistant("Hello!")], None, False),
}  # fmt: skip


def make_conversations(n: int) -> list[Conversation]:
    """Conversations of random turns, from a seed."""
    dice = random.Random(3407)
    words = ["Hi", "\n", "</think>", "<think>", " ", "é", "<|im_end|>", '"', "\\n", "{{"]

    def text() -> str:
        return "".join(dice.choice(words) for _ in range(dice.randrange(6)))

    def message() -> dict[str, Any]:
        made: dict[str, Any] = {"content": text()}
        made["role"] = dice.choice(["system", "user", "assistant", "tool"])
        if made["role"] == "assistant" and dice.random() < 0.5:
            made["tool_calls"] = [{"name": text(), "arguments": {text(): [1.5, None, text()]}}]
        return made

    return [
        Conversation(
            [message() for _ in range(dice.randint(1, 7))],
            dice.choice([None, [], TOOLS]),
            dice.random() < 0.5,
        )
        for _ in range(n)
    ]


@pytest.mark.parametrize("name", TEMPLATES)
def test_both_engines_render_every_conversation_the_same(name: str) -> None:
    known = list(CONVERSATIONS.values())
    conversations = [*known, *make_conversations(150)]
    ours = render_many(read_template(name), conversations)
    assert ours == render_many(read_template(name), conversations, "transformers")
    assert len(set(ours[: len(known)])) == len(known)


def test_the_models_own_template_is_rendered_the_same_by_both_engines(model_path: Path) -> None:
    own = read_template(model_path)
    assert render(own, HELLO) == render(own, HELLO, "transformers")
    assert "You are a helpful AI assistant named SmolLM" in render(own, HELLO)


@pytest.mark.parametrize("system", ["", "Be\n brief: C:\\new"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_llama_cpp_renders_a_question_the_same(name: str, system: str, model_path: Path) -> None:
    asked = Conversation.ask('Hi\n "é" \\n C:\\temp\t¿', system)
    assert render_with_llama_cpp(read_template(name), asked, model_path) == render(
        read_template(name), asked
    )


def test_llama_cpp_renders_several_turns_the_same(model_path: Path, tmp_path: Path) -> None:
    # llama-completion shows its template with a conversation of its own.
    (tmp_path / "template.jinja").write_text(WITH)
    flags = ["-m", str(model_path), "--jinja", "--chat-template-file"]
    flags.append(str(tmp_path / "template.jinja"))
    log = tools.run_tool("llama-completion", [*flags, "-cnv", "-st", "-p", "x", "-n", "0"])
    turns = [
        {"role": "system", "content": "You are a helpful assistant"},
        user("Hello"),
        assistant("Hi there"),
        user("How are you?"),
    ]
    shown = render(WITH, Conversation(turns))
    assert f"chat template example:\n{shown}" in log.stderr


def test_what_llama_completion_cannot_be_given_is_refused(model_path: Path) -> None:
    for name in ("several turns", "tools", "the end of a turn"):
        with pytest.raises(ChatError, match="takes one user message"):
            render_with_llama_cpp(WITH, CONVERSATIONS[name], model_path)


def test_our_template_is_the_one_that_the_article_prints_tag_by_tag() -> None:
    printed, ours = ARTICLE.read_text(encoding="utf-8"), WITH
    read = [
        [(kind, value) for _, kind, value in Environment().lexer.tokeniter(text.strip(), None)
         if kind != "whitespace"]
        for text in (printed, ours)
    ]  # fmt: skip
    assert read[0] == read[1]
    assert identify_template(printed) == "with-think"
    conversations = list(CONVERSATIONS.values())
    assert render_many(printed, conversations) == render_many(ours, conversations)


def test_the_two_templates_differ_in_one_line() -> None:
    changed = [line for line in diff_templates(WITHOUT) if line[0] in "+-"]
    assert changed == [
        "--- with-think",
        "+++ this one",
        r"-{{- '<|im_start|>assistant\n<think>\n' }}",
        r"+{{- '<|im_start|>assistant\n' }}",
    ]
    assert diff_templates(WITH) == []


def test_earlier_thinking_is_not_in_the_prompt() -> None:
    prompt = render(WITH, CONVERSATIONS["earlier thinking"])
    assert "A greeting." not in prompt
    assert "<|im_start|>assistant\nHello!<|im_end|>" in prompt


def test_a_template_from_a_file_is_told_from_the_known_ones(
    model_path: Path, tmp_path: Path
) -> None:
    own = read_template(model_path)
    assert identify_template(own) is None and diff_templates(own)
    assert "does not name <think>" in explain_template(own)
    (tmp_path / "mine.jinja").write_text(WITHOUT.replace("\n", "\n\n  ").rstrip())
    assert explain_template(read_template(tmp_path / "mine.jinja")) == "It equals without-think."
    changed = WITH.replace("Be", "").replace("'\\n<tool_response>", "'<tool>")
    assert identify_template(changed) is None
    assert len(diff_templates(changed)) < 10


def test_a_template_from_a_file_of_a_stranger_is_rendered_with_limits(tmp_path: Path) -> None:
    file = Gguf(keys=[("tokenizer.chat_template", "{{ 'a' * 10 ** 9 }}")])
    (tmp_path / "strange.gguf").write_bytes(b"".join(file.pieces()))
    with pytest.raises(ChatError, match="more memory"):
        render(read_template(tmp_path / "strange.gguf"), HELLO)
    (tmp_path / "bare.gguf").write_bytes(b"".join(Gguf().pieces()))
    with pytest.raises(ChatError, match=r"bare\.gguf has no chat template"):
        read_template(tmp_path / "bare.gguf")


FAR = "{% for i in range(99999) %}"
SLOW_OR_BIG = "more memory|within 0.7 s"  # whichever comes first on a machine
# Sources, and a pattern of what is said of each.
HOSTILE = {
    "{{ ''.__class__ }}": "may not touch",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}": "may not touch",
    "{{ ''['__class__'] }}": "may not touch",
    "{{ ''|attr('__class__') }}": "may not touch",
    "{{ ['']|map(attribute='__class__')|list }}": "may not touch",
    "{{ '{0.__class__}'.format('') }}": "may not touch",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}": "may not touch",
    "{{ raise_exception.__globals__ }}": "may not touch",
    "{{ messages.append(1) }}": "may not touch",
    "{% include '/etc/passwd' %}": "no loader",
    "{% import 'os' as os %}": "no loader",
    "{% for i in range(10 ** 9) %}{% endfor %}": "out of proportion",
    FAR + FAR + "{% endfor %}{% endfor %}": "within 0.7 s",
    FAR + FAR + "abc{% endfor %}{% endfor %}": SLOW_OR_BIG,
    "{{ 'abcde' * 10 ** 6 }}": "writes more",
    "{{ 'a' * 10 ** 9 }}": "more memory",
    "{% set n = namespace(x='ab') %}" + FAR + "{% set n.x = n.x ~ n.x %}{% endfor %}": SLOW_OR_BIG,
    "{{ range(99999)|batch(10 ** 9, 'x')|list }}": SLOW_OR_BIG,
    "{{ 'a'|center(10 ** 9) }}": "more memory",
    "{{ '%1000000000d'|format(1) }}": "more memory",
    "{{ 10 ** (10 ** 8) }}": "within 0.7 s",
    "{{ (10 ** 5000)|string }}": "Exceeds the limit",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": "without end",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}": "without end",
    "{% if 1 %}" * 3000 + "{% endif %}" * 3000: "without end",
    "{{ raise_exception('no \x1b[31msystem') }}": r"no \\x1b\[31msystem",
    "{% if x %}": r"no Jinja \(line 1\)",
    "{{ x|no_such_filter }}": "no_such_filter",
}


@pytest.mark.slow
@pytest.mark.parametrize("source", HOSTILE, ids=lambda source: source[:40])
def test_a_hostile_template_gets_a_sentence(source: str) -> None:
    with pytest.raises(ChatError) as caught:
        render(source, HELLO)
    assert re.search(HOSTILE[source], str(caught.value))
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400


@pytest.mark.parametrize("engine", chat.RENDERERS)
def test_a_template_that_never_ends_is_stopped(engine: str) -> None:
    with pytest.raises(ChatError, match=r"did not end within 0\.7 s"):
        render(FAR + FAR + "{% endfor %}{% endfor %}", HELLO, engine)


def test_a_template_is_rendered_in_the_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = []
    run_python = sandbox.run_python

    def watch(*args: Any, **named: Any) -> Any:
        outcomes.append(run_python(*args, **named))
        return outcomes[-1]

    monkeypatch.setattr(chat, "run_python", watch)
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert {render("fine", HELLO, engine) for engine in chat.RENDERERS} == {"fine"}
    assert [outcome.isolation.level for outcome in outcomes] == ["strong", "strong"]


def test_a_generation_block_and_no_documents_are_shown_as_transformers_shows_them() -> None:
    source = (
        "{% for m in messages %}{% generation %}{% set x = m.content %}{{ x }}{% endgeneration %}"
        "{{ x }}{% if loop.last %}{% break %}{% endif %}{% endfor %}{{ strftime_now('%%') }}"
        "{{ documents }}"
    )
    assert render(source, HELLO) == render(source, HELLO, "transformers") == "Hi%None"


def test_a_template_may_ask_for_the_models_special_tokens(engine: Engine) -> None:
    source = "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"
    assert preview(engine, source, HELLO) == "<|im_start|>Hi<|im_end|>"
    assert render(source, HELLO) == "Hi"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([], "messages is empty"),
        ("Hi", "messages is not a list"),
        (["Hi"], "messages is not a list"),
        ([{"content": "Hi"}], 'messages[0] has no "role"'),
        ([user("Hi"), {"role": 3}], 'messages[1] has no "role"'),
        ([{"role": "user", "content": {1, 2}}], "cannot be written as JSON"),
    ],
)
def test_messages_of_another_form_are_refused(values: Any, words: str) -> None:
    with pytest.raises(ChatError) as caught:
        Conversation(values)
    assert words in str(caught.value)


def test_a_call_without_text_is_refused_by_the_articles_template() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    for engine in chat.RENDERERS:
        with pytest.raises(ChatError, match="'None' has no attribute 'split'"):
            render(WITH, Conversation([user("Warm?"), call]), engine)


def test_a_conversation_keeps_what_it_was_given() -> None:
    given = [user("Hi")]
    kept = Conversation(given)
    given[0]["content"] = "Bye"
    assert kept == HELLO


# The split of thinking and answer.

SPLITS = [
    ("so 4.\n</think>\n\n4", True, Thinking("so 4.", "4", "prompt", True)),
    ("<think>\nso 4.\n</think>\n\n4", False, Thinking("so 4.", "4", "text", True)),
    ("\n <think>so 4.</think>4\n", False, Thinking("so 4.", "4\n", "text", True)),
    ("<think>\nso 4.\n</think>\n\n4", True, Thinking("so 4.", "4", "prompt", True)),
    ("4", False, Thinking("", "4", None, False)),
    (" 4\n", False, Thinking("", " 4\n", None, False)),
    ("so 4.\n</think>\n\n4", False, Thinking("", "so 4.\n</think>\n\n4", None, True)),
    ("so", True, Thinking("so", "", "prompt", False)),
    ("<think>\nso\n", False, Thinking("so", "", "text", False)),
    ("<thi", False, Thinking("", "<thi", None, False)),
    ("so </thi", True, Thinking("so </thi", "", "prompt", False)),
    ("<think>\n<think>so</think></think>\n4", False, Thinking("so", "4", "text", True)),
    ("a <think> b</think>c</think>", True, Thinking("a <think> b", "c</think>", "prompt", True)),
    ("I say <think>", False, Thinking("", "I say <think>", None, False)),
    ("<think></think>4", False, Thinking("", "4", "text", True)),
    ("<think>`</think>`, no</think>4", False, Thinking("`</think>`, no", "4", "text", True)),
    ('say "4"</think>4', True, Thinking('say "4"', "4", "prompt", True)),
    ("It ends with `</think>`.", False, Thinking("", "It ends with `</think>`.", None, False)),
    ("", True, Thinking("", "", "prompt", False)),
    ("", False, Thinking("", "", None, False)),
]


@pytest.mark.parametrize(("text", "forced", "expected"), SPLITS)
def test_the_thinking_is_split_from_the_answer(text: str, forced: Any, expected: Any) -> None:
    assert split_thinking(text, forced) == expected


def stream_in_pieces(text: str, forced: bool, dice: random.Random) -> tuple[Thinking, str, str]:
    stream, given, at = ThinkingStream(forced), [], 0
    while at < len(text):
        size = dice.choice([1, 1, 2, 3, 5, 20])
        given.append(stream.feed(text[at : at + size]))
        at += size
    given.append(stream.finish())
    return stream.result, "".join(t for t, _ in given), "".join(a for _, a in given)


def test_a_stream_gives_what_the_whole_text_gives_however_it_is_cut() -> None:
    dice = random.Random(3407)
    pieces = [OPEN, CLOSE, "\n", "\n\n", " ", "a", "b <", "</", "<thi", "<", "nk>", "x > y", "</th"]
    pieces += ["`", f"`{CLOSE}`", f'"{CLOSE}']
    made = ["".join(dice.choices(pieces, k=dice.randrange(10))) for _ in range(4_000)]
    for text in (*made, *(text for text, *_ in SPLITS)):
        for forced in (True, False):
            whole = split_thinking(text, forced)
            result, thinking, answer = stream_in_pieces(text, forced, dice)
            assert result == whole, (text, forced)
            assert (thinking, answer) == (whole.thinking, whole.answer), (text, forced)


def test_a_stream_holds_back_no_more_than_a_tag() -> None:
    stream = ThinkingStream(forced=True)
    assert stream.feed("so <b>4</b>") == ("so <b>4</b>", "")
    assert stream.feed("\n</thin") == ("", "")
    assert stream.feed("g") == ("\n</thing", "")


def test_a_prompt_says_whether_it_forces_the_thinking() -> None:
    assert is_forced(render(WITH, HELLO))
    assert not is_forced(render(WITHOUT, HELLO))
    assert not is_forced(render(WITH, CONVERSATIONS["the end of a turn"]))


def test_tags_are_counted_as_the_runs_wrote_them() -> None:
    texts = ["<think>\nso\n</think>\n4", "\n<think>so", "so</think>4", "I say <think>", "4"]
    runs = [Run(Request("x"), 1, (1,), text, "end", (), (), 0.0) for text in texts]
    counts = count_tags(runs)
    assert (counts.runs, counts.opened, counts.closed) == (5, 2, 2)
    low, high = counts.opened_interval
    assert low < 0.4 < high
    assert count_tags([]).opened_interval == (0.0, 1.0)


# The panel.


@pytest.fixture
def panel(engine: Engine) -> ThinkPanel:
    return ThinkPanel(engine, "What is 2 + 2?", n_predict=24)


def test_an_edit_of_the_template_changes_the_prompt_and_the_tokens(
    panel: ThinkPanel, engine: Engine
) -> None:
    before = panel.shown
    assert before is not None
    assert before == render(WITH, Conversation.ask("What is 2 + 2?"))
    panel.template.value = WITHOUT
    assert panel.wait()
    assert panel.shown is not None
    assert panel.shown == before.removesuffix("<think>\n")
    assert f"{len(engine.model.tokenize(panel.shown))} tokens" in panel.words.value
    assert "It equals without-think." in panel.words.value
    assert "&lt;|im_start|&gt;assistant" in panel.prompt.value
    panel.system.value = "Be brief."
    assert panel.wait()
    assert panel.shown is not None
    assert panel.shown.startswith("<|im_start|>system\nBe brief.<|im_end|>")


def test_the_tokens_are_those_that_llama_cpp_reads(
    engine: Engine, llama_tokenize: Callable[[str], list[int]]
) -> None:
    for name in ("earlier thinking", "text like a template", "markers in the text"):
        prompt = preview(engine, WITH, CONVERSATIONS[name])
        assert engine.model.tokenize(prompt) == llama_tokenize(escape(prompt))


def test_the_models_own_template_can_be_chosen(panel: ThinkPanel) -> None:
    panel.template.choice.value = OWN
    assert panel.wait()
    assert panel.shown is not None
    assert "named SmolLM" in panel.shown
    panel.template.value += "x"
    assert panel.template.choice.value == EDITED
    panel.template.choice.value = "without-think"
    assert panel.wait()
    assert panel.template.value == WITHOUT


def test_a_template_that_does_not_render_is_told_and_mended(panel: ThinkPanel) -> None:
    panel.template.value = "{% if %}"
    assert panel.wait()
    assert "There is no prompt." in panel.words.value
    assert "is no Jinja (line 1)" in panel.status.value
    panel.start()
    assert panel.wait()
    assert not panel.run and "is no Jinja (line 1)" in panel.status.value
    panel.template.value = "{{ messages[0].content }}"
    assert panel.wait()
    assert panel.status.value == ""
    assert panel.shown is not None
    assert panel.shown == "What is 2 + 2?"


def test_generate_shows_what_the_plain_function_gives(panel: ThinkPanel, engine: Engine) -> None:
    panel.run_button.click()
    assert panel.wait()
    prompt = render(WITH, panel.conversation)
    run = engine.generate(prompt, panel.sampling, 3407, 24)
    split = split_thinking(run.text, is_forced(prompt))
    assert panel.run is not None
    assert (panel.run.tokens, panel.split) == (run.tokens, split)
    assert split.opened_by == "prompt" and split.thinking == run.text.strip("\n")
    assert describe_split(run, split).startswith("The prompt opened the thinking, and the model")
    assert panel.stop_button.disabled and not panel.run_button.disabled


def test_stop_ends_a_run_and_keeps_its_text(panel: ThinkPanel) -> None:
    panel.n_predict = 4000
    panel.sampling = panel.sampling.with_(temp=1.5, top_k=0, top_p=1.0)
    panel.start()
    until = time.monotonic() + 60
    while "thinking" not in panel.thinking.value and time.monotonic() < until:
        time.sleep(0.01)
    panel.stop()
    assert panel.wait()
    assert panel.run is not None and panel.split is not None
    assert panel.run.stop in ("stopped", "end")
    assert panel.run.text.strip("\n").startswith(panel.split.thinking[:5])


def test_what_a_model_or_a_template_wrote_is_escaped(panel: ThinkPanel) -> None:
    panel.template.value = "<script>{{ messages[0].content }}"
    assert panel.wait()
    assert "<script>" not in panel.prompt.value + panel.tokens.value
    panel._write(Thinking("<b>x", "<i>y", "prompt", True))
    assert "<b>x" not in panel.thinking.value and "<i>y" not in panel.answer.value


# The command line.


@pytest.fixture
def messages(tmp_path: Path) -> Path:
    path = tmp_path / "messages.json"
    path.write_text(json.dumps(CONVERSATIONS["a call"].messages), encoding="utf-8")
    return path


@pytest.mark.parametrize("engine", chat.RENDERERS)
def test_render_prints_the_prompt_and_nothing_else(
    engine: str, messages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tools = tmp_path / "tools.json"
    tools.write_text(json.dumps(TOOLS))
    args = ["render", "--template", "with-think", "--messages", str(messages)]
    assert main([*args, "--tools", str(tools), "--engine", engine]) == 0
    said = capsys.readouterr()
    assert said.out == render(WITH, CONVERSATIONS["a call"])
    assert said.err == ""


def test_messages_may_begin_with_a_byte_order_mark(
    messages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    messages.write_bytes(b"\xef\xbb\xbf" + json.dumps([user("Hi")]).encode())
    assert main(["render", "--template", "with-think", "--messages", str(messages)]) == 0
    assert capsys.readouterr().out == render(WITH, HELLO)


def test_render_takes_a_models_own_template(
    messages: Path, model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    messages.write_text(json.dumps([user("Hi")]))
    args = ["render", "--messages", str(messages), "--template"]
    assert main([*args, str(model_path)]) == 0
    assert capsys.readouterr().out == render(read_template(model_path), HELLO)
    assert main([*args, "without-think", "--no-generation-prompt", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values == {
        "prompt": "<|im_start|>user\nHi<|im_end|>\n",
        "template": "without-think",
        "engine": "jinja",
        "forced": False,
    }


def test_render_says_which_special_tokens_it_leaves_empty(
    messages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.jinja").write_text("{{ bos_token }}x")
    args = ["render", "--messages", str(messages), "--template", str(tmp_path / "t.jinja")]
    assert main(args) == 0
    said = capsys.readouterr()
    assert said.out == "x" and "names bos_token, which is left empty" in said.err


SPECIALS = "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"


def test_a_gguf_gives_its_template_its_own_tokens(
    messages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = [f"<{n}>" for n in range(12)]
    made = Gguf(keys=[("tokenizer.ggml.tokens", tokens), ("tokenizer.chat_template", SPECIALS)])
    messages.write_text(json.dumps([user("Hi")]))
    for ids, prompt, unsaid in (
        ((0, 11), "<0>Hi<11>", 0),
        ((11, 12), "<11>Hi", 1),  # there is no token 12
        ((None, 3), "Hi<3>", 1),
    ):
        names = ("tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id")
        given = [
            (name, Raw(4, u32(n))) for name, n in zip(names, ids, strict=True) if n is not None
        ]
        (tmp_path / "t.gguf").write_bytes(Gguf(keys=[*made.keys, *given]).build())
        args = ["render", "--messages", str(messages), "--template", str(tmp_path / "t.gguf")]
        assert main(args) == 0
        said = capsys.readouterr()
        assert said.out == prompt and said.err.count("left empty") == unsaid


def test_a_folder_gives_its_template_what_transformers_does(
    messages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copy(build_qwq() / "tokenizer.json", folder)
    bos = {"__type": "AddedToken", "content": "<|im_start|>", "lstrip": False, "rstrip": False,
           "normalized": False, "single_word": False}  # fmt: skip
    values = {"bos_token": bos, "eos_token": "<|im_end|>", "pad_token": "<|vision_pad|>",
              "chat_template": SPECIALS + "{{ pad_token }}{{ enable_thinking }}"}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(values))
    messages.write_text(json.dumps([user("Hi")]))
    args = ["render", "--messages", str(messages), "--template", str(folder)]
    assert main([*args, "--chat-template-kwargs", '{"enable_thinking": false}']) == 0
    said = capsys.readouterr()
    assert said.out == "<|im_start|>Hi<|im_end|><|vision_pad|>False" and not said.err
    tokenizer = TransformersTokenizer(folder).tokenizer
    assert said.out == tokenizer.apply_chat_template(
        [user("Hi")], tokenize=False, add_generation_prompt=True, enable_thinking=False
    )


def test_a_templates_variables_can_be_given(
    messages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template = tmp_path / "t.jinja"
    template.write_text("{{ bos_token }}{% if enable_thinking is false %}no{% endif %}{{ more }}")
    args = ["render", "--messages", str(messages), "--template", str(template)]
    flag = "--chat-template-kwargs"
    assert main([*args, flag, '{"enable_thinking": false, "more": 1}', flag, '{"more": 2}']) == 0
    assert capsys.readouterr().out == "no2"
    assert main([*args, flag, '{"bos_token": "<s>"}']) == 0
    said = capsys.readouterr()
    assert said.out == "<s>" and not said.err
    for wrong in ("[1]", "{", "false", '{"messages": []}', '{"add_generation_prompt": 1}'):
        assert main([*args, flag, wrong]) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1
        assert "is no JSON object" in said.err or "part of the conversation" in said.err


def test_a_name_or_a_path_is_read_as_a_template(tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text("{{ messages[0].content }}!")
    assert render("with-think", [user("Hi")]) == render(WITH, HELLO)
    assert render(tmp_path / "t.jinja", HELLO) == "Hi!"
    assert identify_template("without-think") == "without-think"
    assert render("with", HELLO) == "with"


OPENAI = [
    [user("Hi"), {"role": "assistant", "content": None, "tool_calls": [CALL]}],
    [{"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "image_url"}]}],
    [user("Hi"), {"role": "assistant", "tool_calls": [CALL], "content": ""}, RESULT],
]


def test_openais_messages_are_rendered_as_transformers_does() -> None:
    source = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}"
        "{{ (m.tool_calls or []) | tojson(indent=1) }}\n{% endfor %}"
    )
    assert render_many(source, OPENAI) == render_many(source, OPENAI, "transformers")
    with pytest.raises(ChatError, match="both of text"):
        render_with_llama_cpp(WITH, Conversation([{"role": "user", "content": None}]), Path("x"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("3", "messages is not a list of JSON objects"),
        ('["Hi"]', "messages is not a list of JSON objects"),
        ("[]", "messages is empty"),
        ('[{"content": "Hi"}]', 'messages[0] has no "role"'),
        ('[{"role": "user", "content": ' + "9" * 5000 + "}]", "is not JSON"),
        ('[{"role": "user"}]', "the template needs 'content', which a message"),
        ("\udcff", "is not text in UTF-8"),
        ("\udcff\udcfe[\0]\0", "is not text in UTF-8"),
    ],
)
def test_a_bad_file_of_messages_gets_one_sentence_and_exit_code_2(
    text: str, words: str, messages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    messages.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert main(["render", "--template", "with-think", "--messages", str(messages)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and words in said.err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none", "'none' is none of"),
        ("/no/such.jinja", "/no/such.jinja cannot be read"),
        ("/no/such.gguf", "/no/such.gguf is not a file"),
    ],
)
def test_a_template_that_is_not_there_gets_exit_code_2(
    name: str, words: str, messages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["render", "--template", name, "--messages", str(messages)]) == 2
    assert words in capsys.readouterr().err
