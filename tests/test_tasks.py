"""The lab's prompts and the rules by which their answers are right."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from qwqlab.errors import SandboxError
from qwqlab.experiments import (
    CHATML,
    measure,
    passes,
    read_prompts,
    read_tasks,
    tasks,
)
from qwqlab.experiments.tasks import KINDS, find_task
from qwqlab.sampling import Request, Run

# Of each program's task: a right program, and one with a mistake that people make.
SOLUTIONS = json.loads((Path(__file__).parent / "solutions.json").read_text(encoding="utf-8"))
CODE = {task.name: task for task in read_tasks("code")}


def write(task: tasks.Task, text: str, stop: str = "end") -> Run:
    """A run that answers a task."""
    tokens = tuple(range(len(text)))
    return Run(Request(CHATML.format(task.text)), 1, tokens, text, stop, (0,) * len(text), (), 0.1)


def run_tests(source: str, tests: tuple[str, ...]) -> bool:
    """Whether one of our own programs passes, without a sandbox."""
    space: dict[str, Any] = {"__name__": "program"}
    exec(source, space)
    try:
        for test in tests:
            exec(test, space)
    except AssertionError:
        return False
    return True


def test_each_programs_tests_tell_a_right_program_from_one_with_a_usual_mistake() -> None:
    assert SOLUTIONS.keys() == CODE.keys()
    for name, task in CODE.items():
        assert run_tests(SOLUTIONS[name]["right"], task.tests), name
        assert not run_tests(SOLUTIONS[name]["wrong"], task.tests), name


def test_any_beginning_of_the_programs_has_all_three_levels() -> None:
    levels = [task.level for task in read_tasks("code")]
    assert Counter(levels) == {1: 40, 2: 40, 3: 40}
    assert set(levels[:13]) == {1, 2, 3}


def test_every_task_is_found_by_the_prompt_that_asks_it_and_no_other_is() -> None:
    for kind in KINDS:
        listed = read_tasks(kind)
        assert len({task.name for task in listed}) == len(listed)
        assert [find_task(prompt) for prompt in read_prompts(kind)] == list(listed)
    assert find_task(CHATML.format("What is the capital of France?")) is None


@pytest.mark.parametrize("name", ["is_prime", "fibonacci", "counter_class"])
def test_a_program_passes_its_tests_in_the_sandbox(name: str) -> None:
    assert passes(SOLUTIONS[name]["right"], CODE[name].tests) is True
    assert passes(SOLUTIONS[name]["wrong"], CODE[name].tests) is False


@pytest.mark.parametrize(
    "ending",
    [
        "import sys; sys.exit()",
        "import os; os._exit(0)",
        "while True: pass",
        "input()",
        "print('every test passed'); raise SystemExit",
        "raise ValueError",
    ],
)
def test_a_program_that_ends_before_its_tests_does_not_pass_them(ending: str) -> None:
    program = f"def add(a, b):\n    return a + b\n{ending}\n"
    assert passes(program, CODE["add"].tests) is False


def test_what_a_program_prints_does_not_count_against_it() -> None:
    program = "def add(a, b):\n    print('adding')\n    return a + b\nprint(add(1, 2), end='')\n"
    assert passes(program, CODE["add"].tests) is True


def test_where_a_program_cannot_be_shut_in_nobody_knows_whether_it_is_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise SandboxError("weak")

    monkeypatch.setattr(tasks, "run_python", refuse)
    assert passes("def add(a, b):\n    return a + b  # not run before\n", CODE["add"].tests) is None


def test_an_answer_is_right_by_the_rule_of_its_task() -> None:
    fence = f"```python\n{SOLUTIONS['add']['right']}\n```"
    assert measure(write(CODE["add"], fence)).right is True
    assert (
        measure(write(CODE["add"], f"```python\n{SOLUTIONS['add']['wrong']}\n```")).right is False
    )
    bread = next(task for task in read_tasks("long") if task.name == "bread")
    text = "Flour and yeast make a dough, and it is baked."
    assert measure(write(bread, text)).right is True
    assert measure(write(bread, "Flour makes a dough.")).right is False
    looping = f"{text} " * 30
    assert measure(write(bread, looping, "length")).right is False
    url = read_tasks("copy")[0]
    assert measure(write(url, f"Here it is: {url.exact}")).right is True
    assert measure(write(url, url.exact.replace("harbour", "harbor"))).right is False


def test_a_prompt_of_the_readers_own_is_neither_right_nor_wrong() -> None:
    run = Run(Request("Say yes."), 1, (1,), "yes", "end", (0,), (), 0.1)
    assert measure(run).right is None
