"""Render chat templates: the program that `chat` runs in the sandbox.

It reads job.json and writes answer.json. A template is a program, and those that come with a model
are from strangers. Jinja's sandbox keeps a template from Python's insides but not from running for
ever or filling the memory, and a thread cannot be stopped. So this file runs in a process of its
own, shut in like any program that nobody has read. It imports nothing of the lab, which that
process can't read.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import Undefined, nodes
from jinja2.exceptions import SecurityError, TemplateError, TemplateSyntaxError, UndefinedError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

_LACKING = r"'dict object' has no attribute '(.*)'"


class Environment(ImmutableSandboxedEnvironment):
    """Jinja as transformers sets it up, with one difference: a forbidden attribute is an error.

    There `{{ ''.__class__ }}` renders as nothing. No honest template asks for it.
    """

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
        )
        # Jinja's own filter escapes what HTML would read.
        self.filters["tojson"] = partial(json.dumps, ensure_ascii=False)
        self.globals["raise_exception"] = _raise
        self.globals["strftime_now"] = lambda format: datetime.now().strftime(format)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        raise SecurityError(f"{attribute!r} of a {type(obj).__name__} is out of bounds")


class Generation(Extension):
    """`{% generation %}` marks an assistant's words for training; here they are just shown."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        scope = nodes.Scope(lineno=next(parser.stream).lineno)
        scope.body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return scope


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def render_with_jinja(template: str, conversations: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the prompts that the lab's environment makes."""
    made = Environment().from_string(template)
    for values in conversations:
        yield made.render(values)


def render_with_transformers(template: str, conversations: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the prompts of what transformers' `apply_chat_template` calls."""
    from transformers.utils.chat_template_utils import render_jinja_template

    for values in conversations:
        rest = {name: value for name, value in values.items() if name != "messages"}
        found: Any = render_jinja_template([values["messages"]], chat_template=template, **rest)
        yield str(found[0][0])


def explain(error: BaseException) -> str:
    """Return what went wrong with a template, as the end of a sentence about it."""
    text = str(error)[:400]
    if isinstance(error, TemplateSyntaxError):
        return f"is no Jinja (line {error.lineno}): {text}"
    if isinstance(error, SecurityError):
        return f"reaches for what a template may not touch: {text}"
    if isinstance(error, UndefinedError) and (lacks := re.search(_LACKING, text)):
        return f"needs {lacks[1]!r}, which a message or tool here does not have; add it"
    if isinstance(error, RecursionError):
        return "calls itself, or nests, without end"
    if isinstance(error, MemoryError):
        return "takes more memory than a template may"
    if isinstance(error, OverflowError):
        return f"is out of proportion: {text}"
    return f"fails on this conversation: {text or type(error).__name__}"


def main() -> None:
    """Answer one job: {"texts": [...]}, with an "error" behind those that came before it."""
    job = json.loads(Path("job.json").read_text(encoding="utf-8"))
    if job["engine"] == "transformers":
        import transformers.utils.chat_template_utils  # noqa: F401  # seconds, not the template's
    # Processor time, the same on a busy machine. The signal's own action ends a process even in
    # the middle of one long multiplication.
    signal.setitimer(signal.ITIMER_PROF, job["seconds"])
    render = render_with_jinja if job["engine"] == "jinja" else render_with_transformers
    texts: list[str] = []
    answer: dict[str, Any] = {"texts": texts}
    try:
        for text in render(job["template"], job["values"]):
            if len(text) > job["characters"]:
                raise OverflowError(f"it writes more than {job['characters']:,} characters")
            texts.append(text)
    except Exception as error:  # noqa: BLE001
        answer["error"] = explain(error)
    Path("answer.json").write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main()
