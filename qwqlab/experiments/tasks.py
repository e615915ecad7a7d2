"""The lab's prompts, and how each one's answer is judged: right or not, by a rule that is data.

A program is right if it passes its prompt's tests in the sandbox; a long text, if it names what the
prompt asks for and doesn't end in a loop; a copy, if it holds the text to the letter. Whoever asks
something else is told None: nobody knows.
"""

from __future__ import annotations

import functools
import json
import re
import secrets
from dataclasses import dataclass

from .. import paths
from ..errors import SandboxError
from ..sandbox import Limits, run_python

KINDS = ("code", "long", "copy")
_LIMITS = Limits(seconds=10, cpu_seconds=3)
_PASSED = "every test passed"
_RUN = f"""\
import json
space = {{"__name__": "program"}}
exec(compile(open("program.py", encoding="utf-8").read(), "program.py", "exec"), space)
for test in json.load(open("tests.json", encoding="utf-8")):
    exec(test, space)
print("\\n{_PASSED}")
"""


@dataclass(frozen=True)
class Task:
    """One prompt, and what a right answer to it is.

    level:  of a program: 1 (one line), 2 (a beginner's course), 3 (takes care).
    tests:  of a program: lines of Python, each an assert.
    answer: of a long text: groups of words, of each of which one must be there.
    exact:  of a copy: the text that must be there to the letter.
    """

    kind: str
    name: str
    text: str
    level: int = 0
    tests: tuple[str, ...] = ()
    answer: tuple[tuple[str, ...], ...] = ()
    exact: str = ""


@functools.cache
def read_tasks(kind: str) -> tuple[Task, ...]:
    """Return the tasks of data/prompts/`kind`.json."""
    path = paths.data_dir() / "prompts" / f"{kind}.json"
    return tuple(
        Task(
            kind,
            each["name"],
            each["text"],
            each.get("level", 0),
            tuple(each.get("tests", ())),
            tuple(map(tuple, each.get("answer", ()))),
            each.get("exact", ""),
        )
        for each in json.loads(path.read_text(encoding="utf-8"))
    )


@functools.cache
def _list_all() -> tuple[Task, ...]:
    return tuple(task for kind in KINDS for task in read_tasks(kind))


@functools.lru_cache(maxsize=1024)
def find_task(prompt: str) -> Task | None:
    """Return the task that a rendered prompt asks, by its last message; None if it is no task."""
    return next((task for task in _list_all() if prompt.rfind(task.text) >= 0), None)


@functools.lru_cache(maxsize=4096)
def passes(program: str, tests: tuple[str, ...]) -> bool | None:
    """Return whether a program passes its tests, each a line of Python, in the sandbox.

    None where this machine can't shut it in (see `sandbox.probe`): then it is not run.
    """
    passed = secrets.token_hex(8)  # printed at the end: a program may end itself with status 0
    main = f"{_RUN}print({passed!r})\n"
    files = {"main.py": main, "program.py": program, "tests.json": json.dumps(tests)}
    try:
        outcome = run_python(files, "main.py", limits=_LIMITS)
    except SandboxError:
        return None
    return outcome.status == 0 and outcome.stdout.rstrip().endswith(passed)


def names_all(text: str, groups: tuple[tuple[str, ...], ...]) -> bool:
    """Return whether a text has a word of each group, as a whole word, in capitals or not.

    >>> names_all("The Dough rises in the oven.", (("dough",), ("oven", "bake")))
    True
    >>> names_all("An overnight rest.", (("oven", "night"),))
    False
    """
    return all(
        any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) for word in group)
        for group in groups
    )
