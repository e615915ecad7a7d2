"""Training examples: Alpaca's and chats; and the lab's own skill: a shopping list becomes JSON.

An example of Alpaca's is an instruction, an input where there is one, and an output; a chat is a
list of messages. The skill is small enough for a small model to learn in minutes, and plain to
score: the answer is that object or it is not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import files, paths
from ..errors import ChatError, SettingError
from ..models import Conversation, Repository, fetch_repository, render_many

# As Unsloth's notebooks have them, after Stanford's Alpaca; the end-of-turn token follows.
WITH_INPUT = """Below is an instruction that describes a task, paired with an input that provides \
further context. Write a response that appropriately completes the request.

### Instruction:
{instruction}

### Input:
{input}

### Response:
"""
WITHOUT_INPUT = """Below is an instruction that describes a task. Write a response that \
appropriately completes the request.

### Instruction:
{instruction}

### Response:
"""
ALPACA = Repository("yahma/alpaca-cleaned", ("alpaca_data_cleaned.json",), kind="dataset")
"""Stanford's Alpaca, cleaned by hand: 52,000 examples, CC BY 4.0; the article trains on it."""
FIELDS = ("instruction", "input", "output")
THINK, END_THINK = "<think>", "</think>"
AT_ONCE = 200  # prompts that one process renders: its processor time is limited


@dataclass(frozen=True)
class Example:
    """One example. input may be empty."""

    instruction: str
    input: str
    output: str

    @property
    def prompt(self) -> str:
        """Return what the model reads; its answer follows."""
        template = WITH_INPUT if self.input else WITHOUT_INPUT
        return template.format(instruction=self.instruction, input=self.input)


@dataclass(frozen=True)
class Turn:
    """One answer of a chat: what the model reads before it, rendered, and what it learns to write.

    The end of the turn is learnt behind the output.
    """

    prompt: str
    output: str


def render_turns(
    chats: Sequence[Conversation],
    template: str,
    variables: Mapping[str, Any] | None = None,
) -> list[list[Turn]]:
    """Return a turn for each of the assistant's messages, chat by chat, as the model will meet it.

    The prompt is the template's own for all messages before it, so what the template drops of
    earlier answers, as a rule their thinking, is not read. The answer is learnt whole, from
    `<think>` on. Where the template itself ends the prompt with `<think>`, the answer goes on from
    there, and one without thinking closes it at once.

    template, variables: as in `models.render`, whose ChatError is raised, with the number of the
    chat that the template refuses.
    """
    asked = [
        (number, chat.messages[:place], str(message["content"]))
        for number, chat in enumerate(chats, 1)
        for place, message in enumerate(chat.messages)
        if message["role"] == "assistant"
    ]
    before = [Conversation(messages) for _, messages, _ in asked]
    prompts: list[str] = []
    try:
        for start in range(0, len(before), AT_ONCE):
            prompts += render_many(template, before[start : start + AT_ONCE], variables=variables)
    except ChatError as error:
        if error.place is None:
            raise
        number, *_ = asked[len(prompts) + error.place]
        raise ChatError(f"example {number}: {error}") from None
    turns = iter(
        Turn(prompt, _go_on(prompt, text))
        for prompt, (*_, text) in zip(prompts, asked, strict=True)
    )
    return [
        [next(turns) for message in chat.messages if message["role"] == "assistant"]
        for chat in chats
    ]


def _go_on(prompt: str, answer: str) -> str:
    """Return what an answer adds to a prompt, which may have begun its thinking.

    >>> _go_on("<think>\\n", "<think>\\nTwo.\\n</think>\\n\\n2"), _go_on("<think>\\n", "2")
    ('Two.\\n</think>\\n\\n2', '\\n</think>\\n\\n2')
    """
    if not prompt.rstrip().endswith(THINK):
        return answer
    thinking = answer.lstrip()
    if thinking.startswith(THINK):
        return thinking.removeprefix(THINK).lstrip("\n")
    return f"\n{END_THINK}\n\n{answer}"


def find_examples(name: str | Path) -> list[Example] | list[Conversation]:
    """Return the examples of a set by its name, or of a file, which holds examples or chats.

    "shopping" ships with the lab; "alpaca-cleaned" is fetched from the hub, once. Of the latter,
    an example without an answer is left out: it would teach to say nothing. Raise FetchError if it
    can't be fetched, SettingError as `read_examples` and `read_chats` do.
    """
    if str(name) == "shopping":
        return read_examples(paths.data_dir() / "shopping" / "train.jsonl")
    if str(name) == "alpaca-cleaned":
        rows = json.loads(fetch_repository(ALPACA).paths[0].read_bytes())
        return [Example(**row) for row in rows if row["output"]]
    path = paths.from_user(name)
    if not path.is_file():
        raise SettingError(f"{name} is no file, and no set: these are shopping, alpaca-cleaned")
    _, first = next(_read_rows(path))
    if isinstance(first, dict) and "conversations" in first:
        raise SettingError(
            f"{path} is in ShareGPT's form; write each chat as messages with role and content, as "
            '{"messages": [{"role": "user", "content": "Hi"}, ...]}'
        )
    is_chat = isinstance(first, dict) and "messages" in first
    return read_chats(path) if is_chat else read_examples(path)


def read_examples(path: str | Path) -> list[Example]:
    """Return Alpaca's examples in a file of JSON lines, or of one JSON list; null is as nothing.

    Raise SettingError, naming the file and the line, for what is no example.
    """
    return [_read_example(row, where) for where, row in _read_rows(Path(path))]


def read_chats(path: str | Path) -> list[Conversation]:
    """Return the chats in a file of JSON lines, or of one JSON list: objects with "messages".

    Messages have a role and a content; the assistant's are learnt, with their thinking if it is
    written into the content, as `<think>...</think>`. Raise SettingError, naming the file and the
    line, for what is no chat, or has nothing to learn.
    """
    return [_read_chat(row, where) for where, row in _read_rows(Path(path))]


def _read_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield each row of a file, and in words where it is; raise SettingError if there is none."""
    text, place = files.read_text(path), ""
    if text.lstrip().startswith("["):
        for number, row in enumerate(_parse(text, str(path)), 1):
            place = f"{path}, example {number}"
            yield place, row
    else:
        for number, line in enumerate(text.split("\n"), 1):  # a string may hold other ends of lines
            if line.strip():
                place = f"{path}, line {number}"
                yield place, _parse(line, place)
    if not place:
        raise SettingError(f"{path} holds no examples")


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SettingError(f"{where}: not JSON ({str(error)[:80]})") from None


def _read_example(row: Any, where: str) -> Example:
    if not isinstance(row, dict):
        raise SettingError(f"{where}: not an object with {', '.join(FIELDS)}, or with messages")
    # A table's export writes null where there is nothing.
    values = {name: "" if row.get(name) is None else row[name] for name in FIELDS}
    for name, value in values.items():
        if not isinstance(value, str):
            raise SettingError(f"{where}: {name} is {type(value).__name__}; it must be text")
        if name != "input" and not value.strip():
            raise SettingError(f"{where}: {name} is missing or empty")
    return Example(**values)


def _read_chat(row: Any, where: str) -> Conversation:
    try:
        messages: Any = row.get("messages") if isinstance(row, dict) else None
        chat = Conversation(messages)
    except ChatError as error:
        raise SettingError(f"{where}: {error}") from None
    answers = [place for place, each in enumerate(chat.messages) if each["role"] == "assistant"]
    if not answers or answers[0] == 0:
        roles = ", ".join(dict.fromkeys(each["role"] for each in chat.messages))
        raise SettingError(
            f"{where}: no message of the role assistant answers another one; its roles are {roles}"
        )
    for place in answers:
        content = chat.messages[place].get("content")
        if not isinstance(content, str) or not content.strip():
            raise SettingError(f"{where}: messages[{place}] has no content that is text")
        if unknown := sorted(chat.messages[place].keys() - {"role", "content"}):
            raise SettingError(
                f"{where}: messages[{place}] has {unknown[0]}, which would not be learnt; leave it "
                "out, and write thinking into the content as <think>...</think>"
            )
    return chat


@dataclass(frozen=True)
class Score:
    """How an answer does: whether it is JSON at all, and whether it is what was asked for."""

    is_json: bool
    is_right: bool


def score(answer: str, example: Example) -> Score:
    """Score an answer; any text around the object counts against it.

    >>> example = Example("List what is bought as JSON.", "Two eggs, please.", '{"eggs": 2}')
    >>> score(' {"eggs": 2}', example), score('Sure! {"eggs": 2}', example).is_json
    (Score(is_json=True, is_right=True), False)
    """
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):  # a model may write thousands of brackets
        return Score(False, False)
    return Score(True, found == json.loads(example.output))
