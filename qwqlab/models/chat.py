r"""Chat templates: from a template and a conversation to the prompt that a model reads.

A chat template is a Jinja program that comes with a model. The lab has the article's two, reads
others from files, and renders with Jinja, with transformers or with llama.cpp.

>>> template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
>>> render(template, Conversation.ask("Hi"))
'user: Hi\n'

Whoever wrote a template, Jinja and transformers render it in the sandbox, with a limit on time,
memory and length. Each call starts a process of its own: nothing of one template reaches the next.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import signal
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import paths
from ..errors import ChatError, ToolchainError
from ..files import parse_json, read_text
from ..llamacpp import run_tool
from ..sandbox import Limits, run_python
from . import template_worker
from .gguf import inspect
from .gguf_header import printable

TEMPLATES = ("with-think", "without-think")
RENDERERS = ("jinja", "transformers")
# Of processor time: with the start of a process, a hostile template is answered in a second.
RENDER_SECONDS = 0.7
RENDER_MEMORY = 512 << 20  # bytes for the process that renders; transformers needs more to begin
MOST = 4_000_000  # characters of a prompt
START = 120.0  # seconds that a process may take to begin: transformers may import torch
LIMITS = {
    engine: Limits(START, round(START), memory)
    for engine, memory in (("jinja", RENDER_MEMORY), ("transformers", 8 * RENDER_MEMORY))
}


@dataclass(frozen=True)
class Conversation:
    """The values that a template gets.

    messages: each a dict with a "role" and usually a "content", as chat APIs take them.
    tools:    the functions that the model may call, as JSON schemas, or None.
    add_generation_prompt: whether the prompt ends where the assistant is to go on.

    Messages and tools are copied. Raise ChatError for another form, or what JSON can't hold.
    """

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] | None = None
    add_generation_prompt: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "messages", _copy_objects("messages", self.messages))
        if self.tools is not None:
            object.__setattr__(self, "tools", _copy_objects("tools", self.tools))
        if not self.messages:
            raise ChatError("messages is empty; give at least one message")
        for place, message in enumerate(self.messages):
            if not isinstance(message.get("role"), str):
                raise ChatError(f'messages[{place}] has no "role"; give "user", "assistant", ...')

    @classmethod
    def ask(cls, text: str, system: str = "") -> Conversation:
        """Return a conversation of one question, with or without a system message.

        >>> Conversation.ask("Hi").messages
        ({'role': 'user', 'content': 'Hi'},)
        """
        first = [{"role": "system", "content": system}] if system else []
        return cls([*first, {"role": "user", "content": text}])


def _copy_objects(name: str, values: Any) -> tuple[dict[str, Any], ...]:
    if not isinstance(values, (list, tuple)) or not all(isinstance(v, Mapping) for v in values):
        raise ChatError(f"{name} is not a list of JSON objects; give one, such as [{{...}}]")
    try:
        return tuple(json.loads(json.dumps([dict(value) for value in values])))
    except (TypeError, ValueError, RecursionError) as error:
        raise ChatError(f"{name} cannot be written as JSON: {error}") from None


def read_template(source: str | os.PathLike[str], tools: bool = False) -> str:
    """Return a template: by its name in TEMPLATES, or from a .jinja, a GGUF or a model's folder.

    It is untrusted. The lab's two, the article's, are the same but for the last line: "with-think"
    ends the prompt in `<think>\\n`. tools: see `choose_template`. Raise ChatError if there is no
    template, ModelFileError if a GGUF or a folder is damaged.
    """
    text = os.fspath(source)
    if text in TEMPLATES:
        return read_text(paths.data_dir() / "templates" / f"{text}.jinja")
    path = paths.from_user(text)
    if path.is_dir():
        found = choose_template(_open_folder(path), tools)
    elif path.suffix == ".gguf":
        found = inspect(path).chat_template
    elif path.suffix == ".jinja":
        return read_text(path, ChatError)
    else:
        raise ChatError(
            f"{text!r} is none of {', '.join(TEMPLATES)}, a .jinja or a .gguf file, or a folder"
        )
    if found is None:
        raise ChatError(f"{path} has no chat template; name one: {', '.join(TEMPLATES)}")
    return found


def choose_template(tokenizer: Any, tools: bool = False) -> str | None:
    """Return the template that transformers would render, None if there is none or no default.

    A tokenizer may have several by name. tools: whether tools are given, for which one called
    "tool_use" is taken where there is one.
    """
    named: str | dict[str, str] | None = tokenizer.chat_template
    if not isinstance(named, dict):
        return named
    return (named.get("tool_use") if tools else None) or named.get("default")


def read_specials(source: str | os.PathLike[str]) -> dict[str, str]:
    """Return the special tokens that a template may ask for, by the names that it has for them.

    They are bos_token and eos_token of a GGUF, every special token of a folder, and none of a
    template alone. Raise ModelFileError for a file or folder that can't be read.
    """
    path = paths.from_user(source)
    if path.is_dir():
        return dict(_open_folder(path).special_tokens_map)
    if path.suffix != ".gguf":
        return {}
    info = inspect(path)
    ids = {"bos_token": info.tokenizer.bos, "eos_token": info.tokenizer.eos}
    texts = {name: info.token(-1 if token is None else token) for name, token in ids.items()}
    return {name: text for name, text in texts.items() if text is not None}


def _open_folder(path: Path) -> Any:
    from .tokenizers import TransformersTokenizer  # which needs llama.cpp; templates do not

    return TransformersTokenizer(path).tokenizer


def read_conversation(
    messages: str | os.PathLike[str],
    tools: str | os.PathLike[str] | None = None,
    add_generation_prompt: bool = True,
) -> Conversation:
    """Return the conversation in a JSON file of messages and one of tools, each a list of objects.

    Raise ChatError, with the file's name, if one of them is something else.
    """
    said = parse_json(Path(messages), ChatError)
    functions = None if tools is None else parse_json(Path(tools), ChatError)
    try:
        return Conversation(said, functions, add_generation_prompt)
    except ChatError as error:
        where = messages if tools is None else f"{messages} and {tools}"
        raise ChatError(f"{where}: {error}") from None


def _find_text(template: str | os.PathLike[str]) -> str:
    """Return a template's text: no template is just one of the lab's names."""
    is_name = isinstance(template, os.PathLike) or template in TEMPLATES
    return read_template(template) if is_name else str(template)


def render(
    template: str | os.PathLike[str],
    conversation: Conversation | Sequence[Mapping[str, Any]],
    engine: str = "jinja",
    variables: Mapping[str, Any] | None = None,
) -> str:
    """Return the prompt that a template makes of a conversation; see `render_many`."""
    return render_many(template, [conversation], engine, variables)[0]


def render_many(
    template: str | os.PathLike[str],
    conversations: Sequence[Conversation | Sequence[Mapping[str, Any]]],
    engine: str = "jinja",
    variables: Mapping[str, Any] | None = None,
) -> list[str]:
    """Return a prompt for each conversation, all from one process (0.1 s; transformers 2 s).

    template: its text, one of TEMPLATES, or a Path that `read_template` takes.
    conversations: a list of messages is one without tools.
    engine: "jinja" as the lab sets it up, or "transformers", what `apply_chat_template` calls.
    variables: what else the template may ask for, such as bos_token or enable_thinking; all others
        are empty.

    Raise ChatError if a variable is named as a part of the conversation, or if the template is not
    Jinja, reaches for what it may not touch, refuses the messages, or takes more than
    RENDER_SECONDS, RENDER_MEMORY or MOST.
    """
    if engine not in RENDERERS:
        raise ChatError(f"{engine!r} is not an engine; give {' or '.join(RENDERERS)}")
    given = {"documents": None, **(variables or {})}
    if taken := sorted(given.keys() & Conversation.__dataclass_fields__.keys()):
        raise ChatError(f"the variable {taken[0]!r} is a part of the conversation; give it there")
    asked = [c if isinstance(c, Conversation) else Conversation(c) for c in conversations]
    job = {
        "template": _find_text(template),
        "engine": engine,
        "values": [{**given, **asdict(conversation)} for conversation in asked],
        "seconds": RENDER_SECONDS,
        "characters": MOST,
    }
    done = run_python(
        {"worker.py": Path(template_worker.__file__).read_bytes(), "job.json": json.dumps(job)},
        "worker.py",
        limits=LIMITS[engine],
        # Jinja's own sandbox holds a template in the first place, on every system.
        minimum="weak",
    )
    if done.status == -signal.SIGPROF:
        raise ChatError(
            f"the template did not end within {RENDER_SECONDS:g} s of processor time, "
            "and was stopped"
        )
    if done.status or "answer.json" not in done.files:
        last = done.stderr.strip().rsplit("\n", 1)[-1]
        raise ChatError(f"the renderer {done.reason} on this template: {printable(last, 200)}")
    answer = json.loads(done.files["answer.json"])
    if "error" in answer:
        refused = ChatError(f"the template {printable(answer['error'], 300)}")
        refused.place = len(answer["texts"])
        raise refused
    return list(answer["texts"])


def render_with_llama_cpp(
    template: str | os.PathLike[str], conversation: Conversation, model: Path
) -> str:
    """Return the prompt that llama.cpp's own Jinja makes, as llama-completion logs it (4 s).

    llama-completion takes one user message, with or without a system message before it; only
    llama-server takes tools and whole conversations. model is any GGUF that it loads. Its Jinja
    runs without the lab's limits: give it templates that you trust. Raise ChatError for a
    conversation of another form, and ToolchainError if llama-completion fails.
    """
    roles = [message["role"] for message in conversation.messages]
    texts = [message.get("content") for message in conversation.messages]
    plain = roles in (["user"], ["system", "user"]) and not conversation.tools
    if not (
        plain and conversation.add_generation_prompt and all(isinstance(t, str) for t in texts)
    ):
        raise ChatError(
            "llama-completion takes one user message, and at most a system message before it, "
            "both of text; render other conversations with jinja or transformers"
        )
    *system, user = map(str, texts)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "template.jinja"
        file.write_text(_find_text(template), encoding="utf-8")
        flags = ["-m", str(model), "--jinja", "--chat-template-file", str(file)]
        flags += ["--no-escape", "-p", user]  # "\n" in a message is two letters
        flags += [flag for text in system for flag in ("-sys", text)]
        flags += ["-cnv", "-st", "-n", "0", "-lv", "5"]  # one turn, no token, every line of the log
        log = run_tool("llama-completion", flags, timeout=START).stderr
    found = re.search(r' D prompt: "(.*?)"\n\S+ D tokens: \[', log, re.DOTALL)
    if found is None:
        raise ToolchainError("llama-completion did not log its prompt; is this another version?")
    return found[1]


def split_tags(source: str) -> list[str]:
    """Return a template a tag a line, without the white space that its tags swallow anyway.

    >>> split_tags("{%- if a %}\\n    {{- b }}\\n{%- endif %}\\n")
    ['{%- if a %}', '{{- b }}', '{%- endif %}']
    """
    source = _find_text(source)
    for mark in ("{%-", "{{-"):
        *before, last = source.removesuffix("\n").split(mark)
        source = mark.join([*(text.rstrip() for text in before), last])
    for mark in ("{%", "{{"):
        source = source.replace(mark, f"\n{mark}")
    return source.removeprefix("\n").split("\n")


def identify_template(source: str) -> str | None:
    """Return the name in TEMPLATES of an equal template, but for white space, or None."""
    tags = split_tags(source)
    return next((name for name in TEMPLATES if split_tags(read_template(name)) == tags), None)


def diff_templates(source: str, name: str = "with-think") -> list[str]:
    """Return how a template differs from a known one: lines as of `diff -u`, none if equal."""
    mine, known = split_tags(source), split_tags(read_template(name))
    return list(difflib.unified_diff(known, mine, name, "this one", lineterm="", n=1))


def explain_template(source: str) -> str:
    """Return a sentence: which known template this one equals, or how far it is from them.

    >>> explain_template(read_template("without-think"))
    'It equals without-think.'
    """
    name = identify_template(source)
    if name is not None:
        return f"It equals {name}."
    n_tags, think = len(split_tags(source)), "<think>" in source
    return (
        f"It equals neither {' nor '.join(TEMPLATES)}: {len(source):,} characters in {n_tags:,} "
        f"tags, and it {'names' if think else 'does not name'} <think>."
    )
