r"""Find the answer in a saved transcript: behind the thinking, before what the tools print.

A saved text does not say whether its prompt opened the thinking, and models write of the tags as
well as with them. So a tag counts by where it is:

- in inline code, between quotes or parentheses it is spoken of;
- in the middle of a sentence, or in a fenced block, it may be either, and then it settles nothing:
  `Answer.sure` says in which lines the answer is the same either way;
- elsewhere it is a tag. The last closing one ends the thinking, unless an opening one comes later.

An echoed prompt ends where the assistant's turn begins. The answer ends with its turn: at an end
mark at the end of a line (`<|im_end|>`, llama.cpp's ` [end of text]`), at the next turn, or where
llama.cpp's timings begin.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from .fences import find_blocks

_ENDS = (
    r"\[end of text\]|<\|im_end\|>|<\|endoftext\|>|</s>|<\|eot_id\|>|<end_of_turn>"
    r"|<｜end▁of▁sentence｜>|<\|return\|>"
)
# The tags of models, then those that llama-cli and ollama print.
_NAME = r"(?i:(?:\w{1,9}:)?(?:think(?:ing)?|thoughts?|reasoning))"
_TAG = re.compile(
    rf"(?P<open><[ ]?{_NAME}[ ]?>|\[THINK\]|◁think▷|<\|START_THINKING\|>"
    r"|<\|channel\|?>(?:analysis|thought)(?:<\|message\|>)?"
    r"|^\[Start thinking\]$|\AThinking\.\.\.$)"
    rf"|(?P<close></[ ]?{_NAME}[ ]?>|\[/THINK\]|◁/think▷|<\|END_THINKING\|>"
    r"|<\|channel\|>final<\|message\|>|<channel\|>"
    r"|^\[End thinking\]$|^\.\.\.done thinking\.$)"
    rf"|(?P<end>{_ENDS})(?=[ \t]*(?:$|{_ENDS}))",
    re.M,
)
_TURN = re.compile(r"^(?P<mark><\|im_start\|>)?(?P<role>system|user|assistant)[ \t]*$", re.M)
_TIMING = re.compile(
    r"(?:[\d.]+ [A-Z] )?(?:llama|common)_\w{0,40}(?:print|timings|breakdown)\w{0,40}:"
    r"|\[ Prompt: .* \]$|Exiting\.\.\.$"
)
_COLOURS = re.compile(r"\x1b\[[\d;]*m")  # of a terminal
_SPOKEN_OF = re.compile(r"""(?<!`)(`+)(?!`)[^`\n]+\1(?!`)|["'“‘(*_](?:<[^<>\n]{1,30}>)["'”’)*_]""")
_SENTENCE_BEFORE = re.compile(r"[\w,;]\s+\Z")
_SENTENCE_AFTER = re.compile(r"""\s+[a-z(]|["'”’.,;:)]""")
_NEAR = 100  # characters on each side of a tag that are looked at


@dataclass(frozen=True)
class Answer:
    """The answer of a transcript, or the reason why there is none.

    thinking: how many characters of it came before. sure: two lines of the answer, from 1; a
    program that begins behind the first, and not behind the second, is in the answer however the
    doubtful tags are read.
    """

    text: str
    thinking: int = 0
    problem: str = ""
    sure: tuple[float, float] = (0, math.inf)


def find_answer(transcript: str) -> Answer:
    r"""Return the answer of a transcript.

    >>> find_answer("user\nHi\nassistant\n<think>\nHm.\n</think>\n\nHello!<|im_end|>").text
    '\n\nHello!'
    >>> find_answer("<think>\nA draft of the answer: hello!").problem
    'the thinking never ends, so there is no answer'
    >>> find_answer("I would end with </think> then.").sure
    (1, inf)
    """
    shown = _COLOURS.sub("", transcript.lstrip("\ufeff").replace("\r\n", "\n"))
    text = _find_turn(_drop_timings(shown))
    if text is None:
        return Answer("", problem="it has several turns of the assistant: which one counts?")
    shown = _SPOKEN_OF.sub(lambda found: "x" * len(found[0]), text)
    fenced = {n for b in find_blocks(text) if b.closed for n in range(b.line, b.end)}
    inside = known = False  # whether the thinking is open; whether a tag has ended it
    begin, end = 0, len(text)
    seen, line, opened_on = 0, 1, 0
    close_at = open_at = None  # the doubtful tags
    for tag in _TAG.finditer(shown):
        line += text.count("\n", seen, tag.start())
        seen = tag.start()
        doubtful = line in fenced or _is_in_a_sentence(shown, tag, line == opened_on)
        if tag["end"]:
            if not doubtful or tag["end"].startswith("["):
                end = tag.start()
                break
        elif tag["open"]:
            if not doubtful:
                inside, opened_on = True, line
            elif not inside and open_at is None:
                open_at = tag.start()
        elif not doubtful:
            inside, known, begin, close_at, open_at = False, True, tag.end(), None, None
        elif not inside and not known:
            close_at = tag.start()
    if inside:
        return Answer("", problem="the thinking never ends, so there is no answer")
    after = 0 if close_at is None else text.count("\n", begin, close_at) + 1
    until = math.inf if open_at is None else text.count("\n", begin, open_at) + 1
    return Answer(text[begin:end].rstrip(" \t"), begin, sure=(after, until))


def _drop_timings(text: str) -> str:
    """Return a text without the lines that llama.cpp prints behind an answer."""
    lines = text.strip("\n").split("\n")
    while lines and (not lines[-1].strip() or _TIMING.match(lines[-1])):
        lines.pop()
    return "\n".join(lines)


def _find_turn(text: str) -> str | None:
    """Return the assistant's turn of an echoed conversation; None if it has several.

    A text that does not begin as an echo is its turn, as far as to the next one.
    """
    turns = list(_TURN.finditer(text))
    if marked := [turn for turn in turns if turn["mark"]]:
        before = text[: marked[0].start()].rstrip()
        if before.endswith("<|im_end|>"):  # the model went on to talk to itself
            return before
        turns = marked
    elif not turns or turns[0].start():
        return text
    begins = [turn.end() for turn in turns if turn["role"] == "assistant"]
    if len(begins) != 1:
        return None if begins else ""
    ends = (turn.start() for turn in turns if turn.start() > begins[0])
    return text[begins[0] + 1 : next(ends, len(text))]


def _is_in_a_sentence(text: str, tag: re.Match[str], on_its_line: bool) -> bool:
    """Return whether a sentence goes on around a tag. on_its_line: it closes the line's own tag."""
    before = text[max(0, tag.start() - _NEAR) : tag.start()].rpartition("\n")[2]
    after = text[tag.end() : tag.end() + _NEAR].partition("\n")[0]
    goes_on = bool(_SENTENCE_AFTER.match(after))
    if tag["open"] and not before.strip():
        return False  # thinking begins in any way
    return goes_on or (not on_its_line and bool(_SENTENCE_BEFORE.search(before)))
