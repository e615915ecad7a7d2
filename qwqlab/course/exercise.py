"""An exercise of a notebook: a question, a solution, and a check that names the misconception.

Each notebook's exercises are functions under `@exercise`, in its module of `exercises/`: the
docstring is the question, the parameters are the notebook's names that the check looks at, and the
body is the check. `python tests/check_notebooks.py --fix` writes the notebook's cells from that,
and the reader's stub from the solution, so the three cannot drift apart.
"""

from __future__ import annotations

import ast
import html
import inspect
import textwrap
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

from .. import paths
from ..errors import SettingError

KINDS = ("predict", "change", "build")
UNANSWERED = "Not answered yet."
RIGHT = "Right."


class Hint(Exception):
    """One sentence for an answer that is not right yet, on the misconception behind it."""


def expect(holds: bool, hint: str) -> None:
    """Raise the hint unless this holds of an answer."""
    if not holds:
        raise Hint(hint)


@dataclass(frozen=True)
class Checked:
    """A checked answer: passed or not, and the sentence for the reader."""

    passed: bool
    sentence: str

    def __str__(self) -> str:
        return self.sentence

    __repr__ = __str__

    def _repr_html_(self) -> str:
        edge = "#009E73" if self.passed else "#E69F00"
        style = f"border-left: 4px solid {edge}; padding: 0.3em 0.8em; margin: 0.3em 0"
        return f'<div role="status" style="{style}">{html.escape(self.sentence)}</div>'


@dataclass(frozen=True)
class Exercise:
    """One exercise. Call it with the answer, and what else the check needs, to get it checked.

    solution: Python that binds the reader's names. after: what the folded solution says besides.
    wrong: pairs of an answer that a reader might give and a part of the hint that it must get.
    """

    check: Callable[..., None]
    kind: str
    solution: str
    after: str
    wrong: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """The check's own name, unique in its notebook."""
        return self.check.__name__

    @property
    def notebook(self) -> str:
        """The notebook's file name without its number, which is its module's name."""
        return self.check.__module__.rpartition(".")[2]

    @property
    def asked(self) -> tuple[str, ...]:
        """The names of the notebook that the check looks at."""
        return tuple(inspect.signature(self.check).parameters)

    @property
    def stub(self) -> str:
        """What the reader fills in: the solution with `...` for its values."""
        return make_stub(self.solution, self.asked)

    def __call__(self, *values: Any) -> Checked:
        """Check an answer, which may be anything; nothing is raised, and the notebook goes on."""
        named = dict(zip(self.asked, values, strict=True))
        if is_untouched(named, self.stub):
            return Checked(False, UNANSWERED)
        try:
            self.check(*values)
        except Hint as hint:
            return Checked(False, f"Not yet: {hint}")
        except Exception as error:  # noqa: BLE001 - an answer can be anything, and raise anything
            found = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            return Checked(False, f"Not yet: this answer can't be checked ({found})")
        _mark_passed(self)
        return Checked(True, RIGHT)


def exercise(
    kind: str, solution: str, wrong: Iterable[tuple[str, str]], after: str = ""
) -> Callable[[Callable[..., None]], Exercise]:
    """Return a decorator that makes an Exercise of a check; texts may be indented as a whole."""
    if kind not in KINDS:
        raise SettingError(f"{kind!r} is no kind of exercise: choose one of {', '.join(KINDS)}")

    def make(check: Callable[..., None]) -> Exercise:
        pairs = tuple((_dedent(answer), hint) for answer, hint in wrong)
        return Exercise(check, kind, _dedent(solution), _dedent(after), pairs)

    return make


def _dedent(text: str) -> str:
    return textwrap.dedent(text).strip()


def make_stub(solution: str, wanted: Iterable[str]) -> str:
    """Return the solution with `...` for its values and for what its functions return.

    Only the names that the check asks for are left, not those that lead to them.

    >>> print(make_stub("two = 1 + 1\\ndef double(n):\\n    return two * n", ["double"]))
    def double(n):
        return ...
    """
    wanted, parts = set(wanted), list[str]()
    for node in ast.parse(solution).body:
        if isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            parts += [f"{name} = ..." for name in names if name in wanted]
        elif isinstance(node, ast.FunctionDef) and node.name in wanted:
            parts.append(f"def {node.name}({ast.unparse(node.args)}):\n    return ...")
    return "\n\n\n".join(parts)


def is_untouched(named: dict[str, Any], stub: str) -> bool:
    """Return whether one of these values is still what the stub gives."""
    given: dict[str, Any] = {}
    exec(stub, given)
    return any(_is_same(named[name], given[name]) for name in named if name in given)


def _is_same(value: Any, stub: Any) -> bool:
    if isinstance(value, FunctionType) and isinstance(stub, FunctionType):
        ours, theirs = value.__code__, stub.__code__
        return (ours.co_code, ours.co_consts) == (theirs.co_code, theirs.co_consts)
    return value is stub


def list_exercises(notebook: str) -> list[Exercise]:
    """Return the exercises of a notebook, such as "03_sampler_lab", in their order."""
    name = notebook.partition("_")[2]
    if not (Path(__file__).parent / "exercises" / f"{name}.py").is_file():
        return []
    module = import_module(f"{__package__}.exercises.{name}")
    return [value for value in vars(module).values() if isinstance(value, Exercise)]


def _mark_of(exercise: Exercise) -> Path:
    return paths.progress_dir() / f"{exercise.notebook}.{exercise.name}"


def _mark_passed(exercise: Exercise) -> None:
    """Remember a right answer by an empty file, which two notebooks can write at once."""
    with suppress(OSError):  # the folder can't be written, but the answer is right
        _mark_of(exercise).parent.mkdir(parents=True, exist_ok=True)
        _mark_of(exercise).touch()


def has_passed(exercise: Exercise) -> bool:
    """Return whether a right answer was given here, in any session."""
    return _mark_of(exercise).exists()
