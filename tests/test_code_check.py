"""Programs judged by their text: the standard library must pass, the article's program must not,
and the token that broke one is found."""

from __future__ import annotations

import multiprocessing
import random
import signal
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from qwqlab.experiments import check_code, check_text, find_break
from qwqlab.experiments.code_check import Worker, find_block
from qwqlab.sampling import Request, Run

# The article's failing program in short: `pipes` is declared global and never assigned.
ARTICLE = """
import random

class Bird:
    def __init__(self):
        self.y = 300

bird = None
score = 0

def reset_game():
    global bird, pipes, score
    bird = Bird()
    pipes.clear()
    score = 0

def add_pipe():
    global pipes
    pipes.append(random.randint(100, 400))

reset_game()
"""


def names(source: str) -> list[tuple[str, int]]:
    check = check_code(source)
    assert check.parses, check.problem
    return list(check.unbound)


def test_the_articles_program_uses_pipes_that_nothing_binds() -> None:
    check = check_code(ARTICLE)
    assert not check.valid
    assert check.reason == "line 14: pipes is bound nowhere"


def test_the_articles_program_is_valid_once_pipes_is_bound_anywhere() -> None:
    assert check_code(ARTICLE.replace("score = 0\n\ndef reset", "pipes = []\n\ndef reset")).valid
    assert check_code(ARTICLE + "def start():\n    global pipes\n    pipes = []\n").valid


# Names made at run time, names of another system, an error on purpose, and real bugs.
UNBOUND_IN_THE_LIBRARY = {
    "_compat_pickle.py": "WindowsError, under except NameError",
    "calendar.py": "constants that enum.global_enum puts into the module",
    "idlelib/config.py": "a bug of Python 3.10",
    "idlelib/config_key.py": "a bug of Python 3.10",
    "idlelib/stackviewer.py": "intentional_name_error",
    "pydoc_data/topics.py": "a text of 770,000 characters is not checked",
    "re/__init__.py": "flags that enum.global_enum puts into the module",
    "ssl.py": "constants that enum's _convert_ puts into the module",
    "sysconfig/__init__.py": "a bug of Python 3.13.0",
}


@pytest.mark.parametrize("share", [0.05, pytest.param(1.0, marks=pytest.mark.nightly)])
def test_the_standard_library_binds_every_name_it_uses(share: float) -> None:
    folder = Path(sysconfig.get_paths()["stdlib"])
    outside = ("site-packages", "test", "tests", "idle_test", "lib2to3", "encodings")
    paths = [
        path
        for path in sorted(folder.rglob("*.py"))
        if not set(path.relative_to(folder).parts) & set(outside)
    ]
    judged, wrong = 0, {}
    for path in random.Random(3407).sample(paths, round(share * len(paths))):
        name = path.relative_to(folder).as_posix()
        check = check_code(path.read_text(encoding="utf-8"))
        judged += not check.notes
        if (check.unbound or not check.parses) and name not in UNBOUND_IN_THE_LIBRARY:
            wrong[name] = check.reason
    assert judged > 300 * share
    assert wrong == {}


GOOD = {
    "comprehension": "rows = [[c for c in r] for r in ([1], [0])]\nprint({k: v for k, v in rows})",
    "walrus": "if (n := len('abc')) > 2:\n    print(n)\nprint([m := 1, m])",
    "except": "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    print(error)",
    "import": "import os.path, sys as system\nfrom math import pi as p\nprint(os, system, p)",
    "match": "match [1, 2]:\n    case [x, *rest] if x:\n        print(x, rest)\n"
    "    case {'a': y, **more}:\n        print(y, more)\n    case str() as z:\n        print(z)",
    "conditional": "import random\nif random.random() > 2:\n    x = 1\nprint(x)",
    "module names": "print(__name__, __file__, __doc__)\nclass A:\n    b = __qualname__",
    "class cell": "class A:\n    def f(self):\n        return __class__, super().__init__",
    "private": "class A:\n    __x = 1\n    def f(self):\n        return self.__x",
    "decorator": "def twice(f):\n    return f\n@twice\ndef g(*a, **rest):\n    return a, rest",
    "late binding": "def f():\n    return g()\ndef g():\n    return 1",
    "nonlocal": "def f():\n    n = 0\n    def g():\n        nonlocal n\n        n += 1\n    g()",
    "del": "x = 1\ndel x",
    "function named top": "def top(self, which):\n    return self, which",
    "lazy annotation": "from __future__ import annotations\ndef f(x: Missing) -> Gone: return x",
    "local annotation": "def f():\n    x: Missing = 1\n    return x",
    "field": "class Point:\n    x: int\n    y: int = 0",
    "for": "for i, (a, b) in enumerate([(1, 2)]):\n    pass\nprint(i, a, b)",
    "with": "with open('f') as (a):\n    print(a)",
    "lambda": "f = lambda x, *y, z=1, **k: (x, y, z, k)",
    "warning": "x = '\\d'\nprint(x is 'a')",
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_every_way_of_binding_a_name_counts(name: str, recwarn: pytest.WarningsRecorder) -> None:
    assert check_code(GOOD[name]).reason == ""
    assert not recwarn.list


def test_type_parameters_bind_names_in_a_python_that_has_them() -> None:
    check = check_code("def f[T: int, *A, **P](x: T) -> T: return x\ntype L[T] = list[T]")
    assert check.valid == check.parses == (sys.version_info >= (3, 12))


BAD = [
    ("print(undefined)", [("undefined", 1)]),
    ("def f():\n    x = 1\n\ndef g():\n    return x", [("x", 5)]),
    ("class A:\n    speed = 3\n    def f(self):\n        return speed", [("speed", 4)]),
    ("print([i for i in range(3)])\nprint(i)", [("i", 2)]),
    ("def tick():\n    global score\n    score += 1", [("score", 3)]),
    ("def f():\n    total += 1\n    return total", [("total", 2)]),
    ("x: int\nprint(x)", [("x", 2)]),
    ("del nothing", [("nothing", 1)]),
    ("@cached\ndef f(a: Missing): pass", [("Missing", 2), ("cached", 1)]),
    ("import os.path as p\nprint(os)", [("os", 2)]),
    ("print(display, get_ipython)", [("display", 1), ("get_ipython", 1)]),
    ("def f(pipes): pass\ndef g():\n    global pipes\n    return pipes", [("pipes", 4)]),
    ("print(f'{missing}')", [("missing", 1)]),
]


@pytest.mark.parametrize(("source", "expected"), BAD)
def test_a_name_that_no_visible_scope_binds_is_reported_where_it_is_first_used(
    source: str, expected: Any
) -> None:
    assert sorted(names(source)) == sorted(expected)


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("for i in range(3)\n    print(i)", 1),
        ("x = 1\nreturn x", 2),
        ("def f(a, a): pass", 1),
        ("if True:\nprint(1)", 2),
        ("x = 'open", 1),
    ],
)
def test_what_the_compiler_refuses_does_not_parse(source: str, line: int) -> None:
    check = check_code(source)
    assert (check.parses, check.valid, check.line) == (False, False, line)
    assert check.reason.startswith(f"line {line}: ")


@pytest.mark.parametrize(
    "source", ["", "\n\n", "# only a comment\n", '"""A docstring."""', "42", "pass"]
)
def test_a_block_with_no_statement_is_not_valid(source: str) -> None:
    assert check_code(source).reason == "the block holds no statement"


@pytest.mark.parametrize(
    "source",
    [
        "from math import *\nprint(floor(x))",
        "globals()['x'] = 1\nprint(x)",
        "exec('x = 1')\nprint(x)",
    ],
)
def test_names_bound_at_run_time_leave_the_program_undecided_and_valid(source: str) -> None:
    check = check_code(source)
    assert check.valid
    assert "no name was judged" in check.notes[0]


HOSTILE = {
    "null": "x = 1\0",
    "surrogate": "x = '\ud800'",
    "minus": "-" * 90_000 + "1",
    "not": "not " * 20_000 + "1",
    "plus": "1" + "+a" * 45_000,
    "attribute": "a" + ".b" * 45_000,
    "call": "a" + "()" * 45_000,
    "parentheses": "(" * 90_000,
    "lambda": "lambda:" * 12_000 + "1",
    "elif": "if 1: pass\n" + "elif 1: pass\n" * 7_000,
    "digits": "x = " + "9" * 90_000,
    "power": "x = 10**10**10**10",
    "hexadecimal": "x = 0x" + "f" * 90_000,
    "attributes": "a" + ".b" * 900,
    "repeated text": "x = 'a' * 10**9",
    "brackets": "(" * 199_000,
    "empty lines": "\n" * 199_000,
    "formats": "f'{" * 500 + "1" + "}'" * 500,
    "odd names": "ſ = 1\nprint(s, \u202e)",
    "keywords": "f(" + "**a," * 20_000 + ")",
    "continued": "\\\n" * 90_000 + "x = 1",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_source_never_ends_the_process(name: str) -> None:
    check = check_code(HOSTILE[name])
    assert check.valid or check.reason


def nest_finally(depth: int) -> str:
    """Each level is compiled twice into the one above it."""
    lines = []
    for level in range(depth):
        pad = "    " * level
        lines += [f"{pad}try:", f"{pad}    pass", f"{pad}finally:"]
    return "\n".join([*lines, "    " * depth + "x = 1"])


def test_a_program_that_takes_the_compiler_too_long_is_refused() -> None:
    worker = Worker(seconds=0.2)
    assert worker.ask(nest_finally(20)) == "takes the compiler more than 0.2 s"
    assert worker.ask("x = 1") == {"parses": True, "unbound": []}
    assert not check_code(nest_finally(24)).valid  # it takes too much memory first
    assert check_code(nest_finally(8)).valid
    assert check_code("x = 1\n" * 60_000).reason.startswith("longer than the 300,000 characters")


def test_an_interrupt_ends_a_check_and_no_answer_goes_astray() -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            check_code(nest_finally(20))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert check_code("print(y)").reason == "line 1: y is bound nowhere"


def test_a_forked_process_checks_with_a_worker_of_its_own() -> None:
    assert check_code("a = 1").valid
    sources = [f"print(name_{n})" for n in range(40)]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        found = pool.map(check_code, sources)
    assert [check.unbound[0][0] for check in found] == [f"name_{n}" for n in range(40)]
    assert check_code("a = 1").valid


def test_a_program_is_read_in_the_encoding_that_it_names() -> None:
    assert "not a text encoding" in check_code("# coding: rot13\nprint(1)\n").problem
    assert check_code("\ufeff# coding: utf-8\nprint('日本')\n").valid


def test_a_reason_names_no_more_than_twenty() -> None:
    reason = check_code("\n".join(f"print(name_{n})" for n in range(1_000))).reason
    assert reason.count("bound nowhere") == 20 and reason.endswith(", and 980 more")


def source_of(text: str) -> str | None:
    block = find_block(text)
    return block.source if block else None


def test_the_first_of_several_blocks_is_taken() -> None:
    assert source_of("a\n```py\nx = 1\n```\nb\n```\ny = 2\n```") == "x = 1\n"
    assert source_of("~~~\na\n```\nb\n~~~\n") == "a\n```\nb\n"
    assert source_of("````\n```\ninner\n````") == "```\ninner\n"
    assert source_of("````\n```\ninner\n```\n````") == "inner\n"


@pytest.mark.parametrize("bullet", ["- ", "* ", "12. ", "  3) "])
def test_a_block_may_open_behind_a_bullet(bullet: str) -> None:
    pad = " " * len(bullet)
    text = f"{bullet}```python\n{pad}if x:\n{pad}    y = 1\n{pad}```\n"
    assert source_of(text) == "if x:\n    y = 1\n"


def test_an_indented_block_loses_the_indent_of_its_fence() -> None:
    text = "1. Run:\n\n    ```python\n    if x:\n        y()\n    ```\n"
    assert source_of(text) == "if x:\n    y()\n"


def test_text_without_a_fence_holds_no_code() -> None:
    assert find_block("print('hello')") is None
    assert find_block("Use ```print(1)``` inline.") is None
    assert find_block("```print(1)```") is None
    assert check_text("print('hello')").reason == "no fenced block"


def test_a_block_that_the_limit_cut_off_is_reported_as_cut_off() -> None:
    cut = check_text("```python\nimport os\nprint(os.path.join('a',")
    assert not cut.valid
    assert cut.reason.endswith("(the block is cut off)")
    block = find_block("```python\nx = 1")
    assert block is not None
    assert not block.closed
    assert check_text("```python\nx = 1").valid


# The token that broke a program, on texts whose breaking token is known

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
