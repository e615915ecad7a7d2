"""From a chat template and a conversation to a prompt: by Jinja, by transformers, by llama.cpp.

Whoever wrote the template, it is rendered in the sandbox, with a limit on its time, its memory and
its length (see `template_worker`).
"""

from __future__ import annotations

import json
import re
import signal
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import ChatError, ToolchainError
from ..isolation import Limits
from ..prompt_text import escape
from ..sandbox import run_python
from ..toolchain import run_tool
from . import template_worker
from .gguf_cursor import show

ENGINES = ("jinja", "transformers")
SECONDS = 0.7  # with the start of a process, a hostile template is answered within a second
MEMORY = 512 << 20  # bytes for the process that renders; transformers needs more to begin
MOST = 4_000_000  # characters of a prompt
LONGEST = 1_000_000  # characters of a template; the article's has 2,184
FILE = 64 << 20  # bytes of a job, and of its answer
START = 120.0  # seconds that a process may take to begin: transformers may bring torch along
LIMITS = {
    engine: Limits(START, round(START), memory, file_bytes=FILE, folder_bytes=2 * FILE)
    for engine, memory in (("jinja", MEMORY), ("transformers", 8 * MEMORY))
}


@dataclass(frozen=True)
class Conversation:
    """What a template is rendered with.

    messages: each a dict with a "role" and, as a rule, a "content", as chat APIs take them.
    tools:    the functions that the model may call, as JSON schemas; None where there are none.
    add_generation_prompt: whether the prompt ends where the assistant is to go on.

    Both are copied. Raises ChatError for what is not of that form, or holds what JSON cannot.
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
        """One question, with or without a system message.

        >>> Conversation.ask("Hi").messages
        ({'role': 'user', 'content': 'Hi'},)
        """
        first = [{"role": "system", "content": system}] if system else []
        return cls([*first, {"role": "user", "content": text}])

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values; `Conversation(**values)` is its inverse."""
        return asdict(self)


def _copy_objects(name: str, values: Any) -> tuple[dict[str, Any], ...]:
    if not isinstance(values, (list, tuple)) or not all(isinstance(v, Mapping) for v in values):
        raise ChatError(f"{name} is not a list of JSON objects; give one, such as [{{...}}]")
    try:
        return tuple(json.loads(json.dumps([dict(value) for value in values])))
    except (TypeError, ValueError, RecursionError) as error:
        raise ChatError(f"{name} cannot be written as JSON: {error}") from None


def render(
    template: str,
    conversation: Conversation,
    engine: str = "jinja",
    variables: Mapping[str, Any] | None = None,
) -> str:
    r"""The prompt that a template makes of a conversation; see `render_many`.

    >>> template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    >>> render(template, Conversation.ask("Hi"))
    'user: Hi\n'
    """
    return render_many(template, [conversation], engine, variables)[0]


def render_many(
    template: str,
    conversations: Sequence[Conversation],
    engine: str = "jinja",
    variables: Mapping[str, Any] | None = None,
) -> list[str]:
    """A prompt for each conversation. One process renders all of them (0.1 s; transformers 2 s).

    engine: "jinja", the lab's own sandbox, or "transformers", what `apply_chat_template` calls.
    variables: what else the template may ask for, such as bos_token; what is not given is empty.

    Raises ChatError where the template is no Jinja, reaches for what it may not touch, refuses the
    messages, or takes more than SECONDS, MEMORY or MOST.
    """
    if engine not in ENGINES:
        raise ChatError(f"{engine!r} is not an engine; give {' or '.join(ENGINES)}")
    if len(template) > LONGEST:
        raise ChatError(f"the template has {len(template):,} characters; the limit is {LONGEST:,}")
    job = {
        "template": template,
        "engine": engine,
        "values": [{"documents": None, **(variables or {}), **c.to_dict()} for c in conversations],
        "seconds": SECONDS,
        "bytes": MEMORY,
        "characters": MOST,
    }
    answer = _ask_worker(job)
    if "error" in answer:
        raise ChatError(f"the template {show(answer['error'], 300)}")
    return list(answer["texts"])


def _ask_worker(job: dict[str, Any]) -> dict[str, Any]:
    done = run_python(
        {"worker.py": Path(template_worker.__file__).read_bytes(), "job.json": json.dumps(job)},
        "worker.py",
        limits=LIMITS[job["engine"]],
        # Jinja's own sandbox holds a template in the first place, on every system.
        minimum="weak",
        keep="answer.json".__eq__,
    )
    if done.status == -signal.SIGALRM:
        raise ChatError(f"the template did not end within {SECONDS:g} s, and was stopped")
    if done.status or "answer.json" not in done.files:
        last = done.stderr.strip().rsplit("\n", 1)[-1]
        raise ChatError(f"the renderer {done.reason} on this template: {show(last, 200)}")
    return dict(json.loads(done.files["answer.json"]))


def render_with_llama_cpp(template: str, conversation: Conversation, model: Path) -> str:
    """The prompt that llama.cpp's own Jinja makes, as llama-completion logs it (4 s).

    llama-completion takes a user's message, with or without a system message before it, and no
    more; only llama-server takes tools and whole conversations. model is any GGUF that it loads.
    Its Jinja runs without this lab's limits: give it templates that you trust. Raises ChatError for
    a conversation of another form, and ToolchainError where llama-completion fails.
    """
    roles = [message["role"] for message in conversation.messages]
    plain = roles in (["user"], ["system", "user"]) and not conversation.tools
    if not (plain and conversation.add_generation_prompt):
        raise ChatError(
            "llama-completion takes one user message, and at most a system message before it; "
            "render other conversations with jinja or transformers"
        )
    *system, user = (str(message["content"]) for message in conversation.messages)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "template.jinja"
        file.write_text(template, encoding="utf-8")
        flags = ["-m", str(model), "--jinja", "--chat-template-file", str(file)]
        flags += ["-p", escape(user)]  # and a system message is taken as it stands
        flags += [flag for text in system for flag in ("-sys", text)]
        flags += ["-cnv", "-st", "-n", "0", "-lv", "5"]  # one turn, no token, every line of the log
        log = run_tool("llama-completion", flags, timeout=START).stderr
    found = re.search(r' D prompt: "(.*?)"\n\S+ D tokens: \[', log, re.DOTALL)
    if found is None:
        raise ToolchainError("llama-completion did not log its prompt; is this another version?")
    return found[1]
