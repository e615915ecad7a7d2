"""Split a model's thinking from its answer, in a whole text or in a stream, and count its tags.

A text alone does not tell where the thinking begins: where the chat template has put `<think>`
into the prompt, the text starts inside it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..stats import wilson

if TYPE_CHECKING:
    from .run import Run

OPEN, CLOSE = "<think>", "</think>"


@dataclass(frozen=True)
class Thinking:
    """A text in two.

    opened_by: where the opening tag is: in the "prompt", in the "text", or None, nowhere. Then
               all of the text is the answer.
    closed:    whether a closing tag came. False: the text ends, or was cut off, while the model
               was thinking. True with opened_by None: a closing tag that nothing opened, a sign
               that the prompt did.
    """

    thinking: str
    answer: str
    opened_by: str | None
    closed: bool

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values; `Thinking(**values)` is the inverse."""
        return asdict(self)


def is_forced(prompt: str) -> bool:
    r"""Say whether a prompt ends in an opening tag, so that the text begins inside the thinking.

    >>> is_forced("<|im_start|>assistant\n<think>\n"), is_forced("<|im_start|>assistant\n")
    (True, False)
    """
    return prompt.rstrip().endswith(OPEN)


def split_thinking(text: str, forced: bool = False) -> Thinking:
    r"""Split a whole text; `forced` means that its prompt ended in the opening tag.

    An opening tag counts at the beginning of the text only, and the first closing tag ends the
    thinking: a model may speak *of* these tags anywhere else. A tag that is repeated at once is
    dropped. Newlines directly inside the tags and after them belong to the tags.

    >>> split_thinking("<think>\n2 + 2\n</think>\n\n4")
    Thinking(thinking='2 + 2', answer='4', opened_by='text', closed=True)
    >>> split_thinking("2 + 2\n</think>\n\n4", forced=True).opened_by
    'prompt'
    """
    if not (forced or text.lstrip().startswith(OPEN)):
        return Thinking("", text, None, CLOSE in text)
    inside, closing, after = _drop(text, OPEN).partition(CLOSE)
    answer = _drop(after, CLOSE).lstrip("\n")
    return Thinking(inside.strip("\n"), answer, "prompt" if forced else "text", bool(closing))


def _drop(text: str, tag: str) -> str:
    """Return a text without the tags at its beginning and the white space before them."""
    while (rest := text.lstrip()).startswith(tag):
        text = rest[len(tag) :]
    return text


class ThinkingStream:
    r"""The same split for a text that comes in pieces, however they cut the tags.

    `feed` and `finish` return the thinking and the answer that are certain by now; what might be
    part of a tag is held back until it is known. `result` is the split once `finish` was called.

    >>> stream = ThinkingStream()
    >>> [stream.feed(piece) for piece in ("<thi", "nk>\nHm", "m\n</th", "ink>\n", "\n4")]
    [('', ''), ('Hm', ''), ('m', ''), ('', ''), ('', '4')]
    """

    def __init__(self, forced: bool = False) -> None:
        self._opened_by: str | None = "prompt" if forced else None
        self._closed = False
        self._step = self._begin_thinking if forced else self._look_for_opening
        self._held = ""
        self._thinking: list[str] = []
        self._answer: list[str] = []

    def feed(self, piece: str) -> tuple[str, str]:
        """Take a piece; return the thinking and the answer that it completes."""
        self._held += piece
        before = len(self._thinking), len(self._answer)
        while self._step():
            pass
        return "".join(self._thinking[before[0] :]), "".join(self._answer[before[1] :])

    def finish(self) -> tuple[str, str]:
        """End the text; return the rest of the thinking and of the answer."""
        rest, self._held = self._held, ""
        if self._step in (self._begin_thinking, self._think):
            rest = rest.strip("\n") if self._step == self._begin_thinking else rest.rstrip("\n")
            self._thinking.append(rest)
            return rest, ""
        rest = rest.lstrip("\n") if self._step == self._begin_answer else rest
        self._answer.append(rest)
        return "", rest

    @property
    def result(self) -> Thinking:
        """The split of what has been returned."""
        thinking, answer = "".join(self._thinking), "".join(self._answer)
        closed = self._closed or (self._opened_by is None and CLOSE in answer)
        return Thinking(thinking, answer, self._opened_by, closed)

    # Each step looks at what is held, and returns whether the next one may go on with it.

    def _look_for_opening(self) -> bool:
        start = self._held.lstrip()
        if start.startswith(OPEN):
            self._opened_by, self._step = "text", self._begin_thinking
        elif OPEN.startswith(start):
            return False
        else:
            self._step = self._say
        return True

    def _begin_thinking(self) -> bool:
        self._held = _drop(self._held, OPEN)
        if OPEN.startswith(self._held.lstrip()):
            return False
        self._held, self._step = self._held.lstrip("\n"), self._think
        return True

    def _think(self) -> bool:
        inside, self._closed, after = _cut(self._held)
        self._thinking.append(inside)
        self._held = after
        if self._closed:
            self._step = self._begin_answer
        return self._closed

    def _begin_answer(self) -> bool:
        self._held = _drop(self._held, CLOSE)
        if CLOSE.startswith(self._held.lstrip()):
            return False
        self._held, self._step = self._held.lstrip("\n"), self._say
        return True

    def _say(self) -> bool:
        self._answer.append(self._held)
        self._held = ""
        return False


def _cut(text: str) -> tuple[str, bool, str]:
    r"""Return what is certainly thinking, whether a closing tag ends it, and the rest.

    >>> _cut("so\n</think>\n4"), _cut("so\n</th")
    (('so', True, '\n4'), ('so', False, '\n</th'))
    """
    inside, closing, after = text.partition(CLOSE)
    if closing:
        return inside.rstrip("\n"), True, after
    begun = next((n for n in range(len(CLOSE) - 1, 0, -1) if text.endswith(CLOSE[:n])), 0)
    sure = text[: len(text) - begun].rstrip("\n")
    return sure, False, text[len(sure) :]


@dataclass(frozen=True)
class TagCounts:
    """How often a model wrote the tags itself; intervals are Wilson's, 95 %, as fractions.

    opened: runs whose own text begins with the opening tag. closed: runs that wrote a closing tag.
    """

    runs: int
    opened: int
    opened_interval: tuple[float, float]
    closed: int
    closed_interval: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return asdict(self)


def count_tags(runs: Iterable[Run]) -> TagCounts:
    """Count both tags in the runs' texts; opening tags of prompts don't count."""
    texts = [run.text for run in runs]
    opened = sum(text.lstrip().startswith(OPEN) for text in texts)
    closed = sum(CLOSE in text for text in texts)
    n = len(texts)
    return TagCounts(n, opened, wilson(opened, n), closed, wilson(closed, n))
