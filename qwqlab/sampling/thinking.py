"""Split a model's thinking from its answer, in a whole text or in a stream, and count its tags.

A text alone does not show where the thinking begins: if the chat template put `<think>` into the
prompt, the text starts inside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..stats import wilson

if TYPE_CHECKING:
    from .run import Run

OPEN, CLOSE = "<think>", "</think>"
# Between quotes or backticks the model speaks of its tag (llama.cpp's issue 27661).
_CLOSING = re.compile(r"""(?<![`"'“‘])</think>|</think>(?![`"'”’])""")


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


def is_forced(prompt: str) -> bool:
    r"""Return whether a prompt ends in an opening tag: then the text begins inside the thinking.

    >>> is_forced("<|im_start|>assistant\n<think>\n"), is_forced("<|im_start|>assistant\n")
    (True, False)
    """
    return prompt.rstrip().endswith(OPEN)


def split_thinking(text: str, forced: bool = False) -> Thinking:
    r"""Split a whole text; `forced` means that its prompt ended in the opening tag.

    An opening tag counts at the beginning of the text only, and the first closing tag that is not
    in quotes ends the thinking: a model may speak *of* these tags. A tag repeated at once is
    dropped. Newlines directly inside the tags and after them belong to the tags.

    >>> split_thinking("<think>\n2 + 2\n</think>\n\n4")
    Thinking(thinking='2 + 2', answer='4', opened_by='text', closed=True)
    >>> split_thinking("2 + 2\n</think>\n\n4", forced=True).opened_by
    'prompt'
    """
    if not (forced or text.lstrip().startswith(OPEN)):
        return Thinking("", text, None, _CLOSING.search(text) is not None)
    inside, after = _drop(text, OPEN), ""
    if closing := _CLOSING.search(inside):
        inside, after = inside[: closing.start()], inside[closing.end() :]
    answer = _drop(after, CLOSE).lstrip("\n")
    return Thinking(inside.strip("\n"), answer, "prompt" if forced else "text", bool(closing))


def _drop(text: str, tag: str) -> str:
    """Return a text without the tags at its beginning and the white space before them."""
    return re.sub(rf"\A(?:\s*{tag})+", "", text)


class ThinkingStream:
    r"""The same split for a text that comes in pieces, however they cut the tags.

    `feed` and `finish` return the thinking and the answer that are certain by now: what might be
    part of a tag is held back. After `finish`, `result` is the split of the whole text.

    >>> stream = ThinkingStream()
    >>> [stream.feed(piece) for piece in ("<thi", "nk>\nHm", "m\n</th", "ink>\n", "\n4")]
    [('', ''), ('Hm', ''), ('m', ''), ('', ''), ('', '4')]
    """

    def __init__(self, forced: bool = False) -> None:
        self._forced = forced
        self._text = ""
        self._n_thinking = self._n_answer = 0  # characters returned so far

    def feed(self, piece: str) -> tuple[str, str]:
        """Take a piece; return the thinking and the answer that it completes."""
        self._text += piece
        split = self.result
        thinking, answer = split.thinking, split.answer
        if split.opened_by is None:
            answer = "" if _may_begin(answer, OPEN) else answer
        elif split.closed:
            answer = "" if _may_begin(answer, CLOSE) else answer
        else:
            thinking = "" if _may_begin(thinking, OPEN) else _cut_begun_tag(thinking)
        return self._give(thinking, answer)

    def finish(self) -> tuple[str, str]:
        """End the text; return the rest of the thinking and of the answer."""
        return self._give(self.result.thinking, self.result.answer)

    @property
    def result(self) -> Thinking:
        """The split of all that was fed."""
        return split_thinking(self._text, self._forced)

    def _give(self, thinking: str, answer: str) -> tuple[str, str]:
        new = thinking[self._n_thinking :], answer[self._n_answer :]
        self._n_thinking, self._n_answer = len(thinking), len(answer)
        return new


def _may_begin(text: str, tag: str) -> bool:
    return tag.startswith(text.lstrip())


def _cut_begun_tag(text: str) -> str:
    r"""Return a thinking without the part of a closing tag at its end.

    >>> _cut_begun_tag("so\n</th")
    'so'
    """
    begun = next((n for n in range(len(CLOSE) - 1, 0, -1) if text.endswith(CLOSE[:n])), 0)
    return text[: len(text) - begun].rstrip("\n")


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


def count_tags(runs: Iterable[Run]) -> TagCounts:
    """Count both tags in the runs' texts; opening tags of prompts don't count."""
    texts = [run.text for run in runs]
    opened = sum(text.lstrip().startswith(OPEN) for text in texts)
    closed = sum(CLOSE in text for text in texts)
    n = len(texts)
    return TagCounts(n, opened, wilson(opened, n), closed, wilson(closed, n))
