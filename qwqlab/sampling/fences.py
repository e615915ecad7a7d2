"""Find the fenced blocks of a text, as models write them.

The rules are CommonMark's (0.31, section 4.5): a fence is three or more backticks or tildes; one
that is bare, of the same kind and at least as long closes the block. Where models keep other
habits, or CommonMark would cut a program in two, these go beyond it:

- a fence may be indented by any amount, also behind a bullet, and each line loses that indent,
  unless the first line has none: then the fence alone is indented;
- inside a string of three quotes nothing is a fence: docstrings hold examples;
- a fence with an info string ends a block of the same kind whose own fence was forgotten;
- blocks inside a block (a Markdown wrapper round the answer, a longer fence) count in its place.

Each line is read once or twice, however the fences lie.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_FENCE = re.compile(
    r"^(?P<indent>[ \t]*(?P<bullet>(?:[-*+]|\d{1,9}[.)])[ \t]+)?)"
    r"(?P<fence>`{3,}(?=[^`]*$)|~{3,})(?P<info>.*)$"
)
_PYTHON = re.compile(r"\{?\.?(python\d?|py|pygame)\b", re.I)
_WRAPPER = re.compile(r"(markdown|md|mdx)\b", re.I)
_DEEPEST = 8  # blocks within blocks; a deeper fence is text
_MOST_UNENDED = 4  # strings that never end; behind them, all fences count
_QUOTES = {quotes: re.compile(rf"\\.|{quotes}") for quotes in ('"""', "'''")}
_UNQUOTED = re.compile(r"""#|"{3}|'{3}|"(?:\\.|[^"\\])*"?|'(?:\\.|[^'\\])*'?""")


@dataclass(frozen=True)
class Block:
    """A fenced block: its source, its info string ("python"), whether its fence was closed, and the
    line of the text at which the source begins, from 1."""

    source: str
    info: str
    closed: bool
    line: int

    @property
    def is_python(self) -> bool:
        """Whether the info string says that this is Python."""
        return bool(_PYTHON.match(self.info))

    @property
    def is_prose(self) -> bool:
        """Whether the info string says that this is Markdown."""
        return bool(_WRAPPER.match(self.info))

    @property
    def end(self) -> int:
        """The line of the text behind the source's last, where the closing fence is."""
        return self.line + self.source.count("\n") + (not self.closed)


@dataclass
class _Fence:
    """An opening fence. first is the index of the line behind it, or behind the last block that it
    holds; quotes is what ends the string in which its last line is."""

    mark: str
    indent: str
    info: str
    first: int
    holds: bool = False
    quotes: str = ""

    @property
    def may_be_python(self) -> bool:
        return not self.info or bool(_PYTHON.match(self.info))

    def is_closed_by(self, fence: re.Match[str]) -> bool:
        if fence["bullet"] or fence["info"].strip() or not fence["fence"].startswith(self.mark):
            return False
        deeper = len(fence["indent"].expandtabs(4)) - len(self.indent.expandtabs(4))
        return self.may_be_python or deeper < 4  # outside a string no Python begins with a fence

    def may_hold(self, fence: re.Match[str]) -> bool:
        """Return whether another fence may open a block inside this one."""
        if _PYTHON.match(self.info):
            return False
        return bool(_WRAPPER.match(self.info)) or not fence["fence"].startswith(self.mark)


def find_blocks(text: str) -> Iterator[Block]:
    r"""Yield the fenced blocks of a text, in their order; an unclosed one runs to the end.

    A fence and its content on one line are inline code, and blocks in quotes ("> ```") are not
    looked for.

    >>> [block.source for block in find_blocks("```md\n# A game\n```py\nx = 1\n```\n```")]
    ['x = 1\n']
    """
    lines = text.replace("\r\n", "\n").split("\n")
    opened: list[_Fence] = []  # the innermost last
    quoted: int | None = None  # the first fence that the string of the innermost block hides
    at = unended = 0  # strings that never end
    while at < len(lines) or quoted is not None:
        if at == len(lines) and quoted is not None:  # the string never ends: it hides nothing
            at, quoted, opened[-1].quotes, unended = quoted, None, "", unended + 1
            fence = _FENCE.match(lines[at])
        else:
            line, fence = lines[at], _FENCE.match(lines[at])
            inner = opened[-1] if opened else None
            hides = inner and inner.may_be_python and unended < _MOST_UNENDED
            if inner and hides and (inner.quotes or not fence):
                if fence and quoted is None:
                    quoted = at
                inner.quotes = _end_quotes(line, inner.quotes)
                quoted = quoted if inner.quotes else None
                fence = None
        at += 1
        if fence is not None:
            yield from _take(fence, opened, lines, at)
    if opened:
        yield from _end(opened, 0, lines, None)


def _take(fence: re.Match[str], opened: list[_Fence], lines: list[str], at: int) -> Iterator[Block]:
    """Close a block with this fence, or open one; at is the index of the next line."""
    closed = [n for n in reversed(range(len(opened))) if opened[n].is_closed_by(fence)]
    if closed:
        alike = [n for n in closed if opened[n].mark == fence["fence"]]
        yield from _end(opened, (alike or closed)[0], lines, at - 1)
        return
    info = fence["info"].strip()
    if opened and not opened[-1].may_hold(fence):
        if not info:
            return
        yield from _end(opened, len(opened) - 1, lines, at - 1, closed=False)
    if len(opened) < _DEEPEST:
        indent = re.sub(r"\S", " ", fence["indent"])
        opened.append(_Fence(fence["fence"], indent, info, at))


def _end(
    opened: list[_Fence], n: int, lines: list[str], end: int | None, closed: bool = True
) -> Iterator[Block]:
    """End the nth open block at this line.

    A block within it that says what it is ends with it, without a fence; a bare fence was text, but
    for in a wrapper. A wrapper that ends is no block, but what is left of one that never ends.
    """
    while len(opened) > n + 1 and not (opened[-1].info or opened[-2].holds):
        opened.pop()
    if not opened[-1].holds or end is None or len(opened) > n + 1:
        yield _make_block(lines, opened[-1], end, closed and len(opened) == n + 1)
    del opened[n:]
    for outer in opened:
        outer.holds, outer.first = True, (end or 0) + 1


def _make_block(lines: list[str], fence: _Fence, end: int | None, closed: bool) -> Block:
    content = lines[fence.first : end]
    if next(filter(str.strip, content), "")[:1] in (" ", "\t"):
        n = len(fence.indent)
        content = [line[:n].lstrip(" \t") + line[n:] for line in content]
    source = "\n".join(content) + ("" if end is None else "\n") if content else ""
    return Block(source, fence.info, closed and end is not None, fence.first + 1)


def _end_quotes(line: str, quotes: str = "") -> str:
    """Return the three quotes whose string is open behind a line of Python, "" if none is.

    quotes: the string that is open before it.

    >>> three = '"' * 3
    >>> _end_quotes(f"x = {three}one") == three, _end_quotes(f"two{three} # {three}", three)
    (True, '')
    """
    if not quotes and '"""' not in line and "'''" not in line:
        return ""
    at = 0
    while found := (_QUOTES[quotes] if quotes else _UNQUOTED).search(line, at):
        if found[0] == "#":
            break
        at = found.end()
        if found[0] in _QUOTES:
            quotes = "" if quotes else found[0]
    return quotes
