"""What is counted in a run: repetition, loops, escapes, valid code.

Pure functions over token ids or text; none of them needs the model. `measure` counts all of it, and
only once for each run: a count of arms, a figure and a report get the same `RunMetrics`, and for a
run that came from a store they get those that the store holds.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

from ..errors import SettingError
from ..sampling import Run, is_forced, split_thinking
from .code_check import check_run, find_program
from .loops import Loop, find_loop
from .tasks import find_task, names_all, passes


def distinct_n(tokens: Sequence[Hashable], n: int) -> float:
    """Return the share of n-grams that are different, unique / all (distinct-n, Li 2016).

    It is 1.0 for fewer than n tokens, and near 0.0 in a loop. 1 minus it is the share of repeats,
    seq-rep-n (Welleck 2019). It falls with the length of the text, so compare runs of like length.
    Tables and code repeat n-grams without being loops.

    >>> distinct_n(["a", "b", "a", "b", "a"], 2)  # ab, ba, ab, ba
    0.5
    """
    total = len(tokens) - n + 1
    if total < 1:
        return 1.0
    return len({tuple(tokens[at : at + n]) for at in range(total)}) / total


def find_run_loop(run: Run) -> Loop | None:
    """Return the cycle in which a run ends, its start counted in tokens; None if it ends in none.

    The tokens are searched first, then the text, where numbers that count are seen. A cycle found
    in the text alone starts at about the token given: the place is scaled by length.
    """
    ended = run.stop == "end"
    loop = find_loop(run.tokens, ended=ended)
    if loop is not None:
        return loop
    loop = find_loop(run.text, ended=ended)
    if loop is None:
        return None
    return replace(loop, start=round(len(run.tokens) * loop.start / len(run.text)))


def escape_rate(runs: Iterable[Run]) -> float:
    """Return escapes per token over runs: how often a token came from outside the raw nucleus.

    The raw nucleus is what top_k and top_p leave of the model's own distribution (see `Run`). The
    rate is 0.0 over no tokens. A chain without top_k or top_p escapes by design.
    """
    escapes = tokens = 0
    for run in runs:
        escapes += len(run.escapes)
        tokens += len(run.tokens)
    return escapes / tokens if tokens else 0.0


def number_prompts(runs: Iterable[Run]) -> list[int]:
    """Return for each run the number of its prompt, from 0 in the order in which they come."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(run.request.prompt, len(numbers)) for run in runs]


@dataclass(frozen=True)
class RunMetrics:
    """The measurements of one run, which a store keeps beside it.

    valid_code and why_invalid judge the run's program (see `find_program`); right judges the answer
    by its task (see `tasks`), None for a prompt that is none of the lab's; loop_start is the
    index of a token, loop_period counts tokens (words and marks if only the text shows the loop).
    thinking: the text begins inside a thinking, or opens one. unclosed: it never ends.
    thinking_loop: it ends in a cycle, whether the model then left it or not.
    """

    valid_code: bool
    why_invalid: str
    right: bool | None
    thinking: bool
    unclosed: bool
    thinking_loop: bool
    loop: bool
    loop_start: int | None
    loop_period: int | None
    loop_repeats: float
    runaway: bool
    seq_rep_4: float
    distinct_2: float
    escape_rate: float
    n_tokens: int

    @property
    def answer_loop(self) -> bool:
        """Whether the answer ends in a cycle; without thinking, the run is the answer."""
        return self.loop and not self.unclosed

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values; `RunMetrics(**values)` is the inverse."""
        return asdict(self)


_MEASURED: WeakKeyDictionary[Run, RunMetrics] = WeakKeyDictionary()


def measure(run: Run) -> RunMetrics:
    """Return all that is counted in one run: valid code, the loop at its end, escapes, repetition.

    It is counted at the first call, and remembered. `Engine.run` yields pairs (index, run): give
    the run. Raise SettingError for anything else.
    """
    if not isinstance(run, Run):
        raise SettingError(f"{type(run).__name__} is not a Run; Engine.run yields (index, run)")
    found = _MEASURED.get(run)
    return remember(run, _measure(run)) if found is None else found


def remember(run: Run, metrics: RunMetrics) -> RunMetrics:
    """Return the metrics, and have `measure` return them for this run: a store kept them."""
    _MEASURED[run] = metrics
    return metrics


def _measure(run: Run) -> RunMetrics:
    code = check_run(run)
    loop = find_run_loop(run)
    split = split_thinking(run.text, is_forced(run.request.prompt))
    thinking = split.opened_by is not None
    unclosed = thinking and not split.closed
    cycles = loop if unclosed else find_loop(split.thinking, ended=True)
    return RunMetrics(
        valid_code=code.valid,
        why_invalid=code.reason,
        right=_judge(run, split.answer, code.valid, loop is not None),
        thinking=thinking,
        unclosed=unclosed,
        thinking_loop=cycles is not None,
        loop=loop is not None,
        loop_start=None if loop is None else loop.start,
        loop_period=None if loop is None else loop.period,
        loop_repeats=0.0 if loop is None else loop.repeats,
        runaway=run.runaway,
        seq_rep_4=1 - distinct_n(run.tokens, 4),
        distinct_2=distinct_n(run.tokens, 2),
        escape_rate=escape_rate([run]),
        n_tokens=len(run.tokens),
    )


def _judge(run: Run, answer: str, valid: bool, loops: bool) -> bool | None:
    """Return whether an answer is right; None if the prompt is no task, or can't be judged here."""
    task = find_task(run.request.prompt)
    if task is None:
        return None
    if task.kind == "code":
        program = find_program(run) if valid else None
        return program is not None and passes(program.source, task.tests)
    if task.kind == "long":
        return not loops and names_all(answer, task.answer)
    return task.exact in answer
