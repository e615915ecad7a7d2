"""The token that broke a program, on texts whose breaking token is known."""

from __future__ import annotations

import pytest

from qwqlab.breaking import Break, find_break
from qwqlab.records import Request, Run

HEAD = ["Here", ":\n", "```python", "\n"]


def make_run(pieces: list[str], escapes: tuple[int, ...] = (), stop: str = "end") -> Run:
    return Run(
        Request("p"), 1, tuple(range(len(pieces))), "".join(pieces), stop,
        (0,) * len(pieces), escapes, 0.0,
    )  # fmt: skip


def find(pieces: list[str], escapes: tuple[int, ...] = (), stop: str = "end") -> Break | None:
    return find_break(make_run(pieces, escapes, stop), pieces)


def test_the_first_escape_on_the_line_of_a_syntax_error_is_blamed():
    pieces = [*HEAD, "x", " = ", "1\n", "def", " f", "(x", " ==", ":\n", "  pass\n", "```"]
    found = find(pieces, (5, 10, 11))
    assert found == Break(10, "line 2: invalid syntax", True)


def test_an_unbound_name_is_blamed_on_the_line_that_uses_it_first():
    pieces = [
        *HEAD,
        "def f():\n",
        "  return ",
        "zebra",
        "\n",
        "print(f())\n",
        "print(zebra)\n",
        "```",
    ]
    assert find(pieces, (6,)) == Break(6, "line 2: zebra is bound nowhere", True)


def test_without_an_escape_on_the_line_the_last_one_before_it_is_blamed():
    pieces = [*HEAD, "a = ", "1", "\n", "b = ", "2\n", "print(c)\n", "```\n", "The ", "end"]
    found = find(pieces, (0, 5, 7, 11))
    assert found is not None
    assert (found.step, found.escaped) == (7, True)


def test_without_any_escape_it_is_the_first_token_of_the_line():
    pieces = [*HEAD, "a = 1", "\n", "print", "(c)\n", "```"]
    assert find(pieces) == Break(6, "line 2: c is bound nowhere", False)
    assert find([*HEAD, "print(c)\n", "```"], (0,)) == Break(4, "line 1: c is bound nowhere", False)


@pytest.mark.parametrize(
    ("pieces", "stop"),
    [
        ([*HEAD, "x = 1\n", "```"], "end"),
        (["No code", " at all"], "end"),
        ([*HEAD, "print(", "1,"], "length"),
        ([*HEAD, "```"], "end"),
        ([], "stopped"),
    ],
    ids=["valid", "no program", "cut off", "empty block", "nothing"],
)
def test_a_program_that_no_token_broke_has_no_breaking_token(pieces, stop):
    assert find(pieces, (), stop) is None


def test_windows_line_ends_count_as_one():
    pieces = ["```\r\n", "x = 1\r\n", "y = ", "(\r\n", "```"]
    found = find(pieces, (3,))
    assert found is not None
    assert found.step == 3
