"""The token that broke a program, on texts whose breaking token is known."""

from __future__ import annotations

from typing import Any

import pytest

from qwqlab.breaking import find_break
from qwqlab.records import Request, Run

HEAD = ["Here", ":\n", "```python", "\n"]


def make_run(pieces: list[str], escapes: tuple[int, ...] = (), stop: str = "end") -> Run:
    return Run(
        Request("p"), 1, tuple(range(len(pieces))), "".join(pieces), stop,
        (0,) * len(pieces), escapes, 0.0,
    )  # fmt: skip


def find(pieces: list[str], escapes: tuple[int, ...] = (), stop: str = "end") -> int | None:
    return find_break(make_run(pieces, escapes, stop), pieces)


def test_the_first_escape_on_the_line_of_a_syntax_error_is_blamed() -> None:
    pieces = [*HEAD, "x", " = ", "1\n", "def", " f", "(x", " ==", ":\n", "  pass\n", "```"]
    assert find(pieces, (5, 10, 11)) == 10


def test_an_unbound_name_is_blamed_on_the_line_that_uses_it_first() -> None:
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
    assert find(pieces, (6,)) == 6


def test_without_an_escape_on_the_line_the_last_one_before_it_is_blamed() -> None:
    pieces = [*HEAD, "a = ", "1", "\n", "b = ", "2\n", "print(c)\n", "```\n", "The ", "end"]
    assert find(pieces, (0, 5, 7, 11)) == 7


def test_without_any_escape_it_is_the_first_token_of_the_line() -> None:
    pieces = [*HEAD, "a = 1", "\n", "print", "(c)\n", "```"]
    assert find(pieces) == 6
    assert find([*HEAD, "print(c)\n", "```"], (0,)) == 4


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
def test_a_program_that_no_token_broke_has_no_breaking_token(
    pieces: list[Any] | list[str], stop: str
) -> None:
    assert find(pieces, (), stop) is None


def test_windows_line_ends_count_as_one() -> None:
    pieces = ["```\r\n", "x = 1\r\n", "y = ", "(\r\n", "```"]
    assert find(pieces, (3,)) == 3


def test_a_program_that_fails_long_before_it_was_cut_off_was_broken() -> None:
    pieces = [*HEAD, "def", " f", "(x", " ==", ":\n", "  pass\n", "x = 1\n", "y = "]
    assert find(pieces, (7,), "length") == 7
