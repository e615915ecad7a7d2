"""What is counted in a run: repetition, loops, escapes, valid code; and intervals for the counts.

Pure functions over token ids or text. None of them needs the model.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from math import sqrt
from statistics import NormalDist
from typing import Any

from .loops import Loop, find_loop
from .pycode import check_text
from .records import Run

__all__ = [
    "Loop",
    "RunMetrics",
    "distinct_n",
    "escape_rate",
    "find_loop",
    "find_run_loop",
    "loop_start",
    "measure",
    "seq_rep_n",
    "wilson",
]


def seq_rep_n(tokens: Sequence[Hashable], n: int = 4) -> float:
    """Share of n-grams that are repeats: 1 - unique n-grams / n-grams (seq-rep-n, Welleck 2019).

    0.0 when nothing repeats, near 1.0 in a loop, 0.0 for fewer than n tokens. It grows with the
    length of the text, so compare runs of like length. False positives: tables and code, whose
    n-grams recur without fault; it counts repetition and calls nothing a loop.

    >>> seq_rep_n([1, 2, 3, 4, 1, 2, 3, 4])  # 5 four-grams, 4 of them different
    0.2
    """
    unique, total = _count_ngrams(tokens, n)
    return (total - unique) / total if total else 0.0


def distinct_n(tokens: Sequence[Hashable], n: int = 2) -> float:
    """Share of n-grams that are different: unique n-grams / n-grams (distinct-n, Li 2016).

    1.0 for fewer than n tokens. The same caution as for `seq_rep_n`. Raises ValueError for n < 1.

    >>> distinct_n(["a", "b", "a", "b", "a"])  # ab, ba, ab, ba
    0.5
    """
    unique, total = _count_ngrams(tokens, n)
    return unique / total if total else 1.0


def _count_ngrams(tokens: Sequence[Hashable], n: int) -> tuple[int, int]:
    if n < 1:
        raise ValueError(f"n={n} is no length of an n-gram: give 1 or more.")
    total = max(0, len(tokens) - n + 1)
    return len(set(zip(*(tokens[k : k + total] for k in range(n)), strict=True))), total


def find_run_loop(run: Run) -> Loop | None:
    """The cycle in which a run ends, its start a token; None if it ends in none.

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


def loop_start(run: Run) -> int | None:
    """The index of the first token of the cycle in which a run ends, to be marked; None if none."""
    loop = find_run_loop(run)
    return None if loop is None else loop.start


def escape_rate(runs: Iterable[Run]) -> float:
    """Escapes per token over runs: how often a token came from outside the raw nucleus.

    The raw nucleus is what top_k and top_p leave of the model's own distribution (see `Run`).
    0.0 over no tokens. A chain without top_k or top_p escapes by design.
    """
    escapes = tokens = 0
    for run in runs:
        escapes += len(run.escapes)
        tokens += len(run.tokens)
    return escapes / tokens if tokens else 0.0


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of Wilson (1927) for a rate, without continuity correction.

    (0.0, 1.0) for n = 0. Raises ValueError for counts or a confidence out of range.

    >>> [round(bound, 3) for bound in wilson(2, 20)]
    [0.028, 0.301]
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is no count: give 0 <= successes <= n.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence} is out of range: give a number within 0 and 1.")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = successes / n
    centre = rate + z * z / (2 * n)
    spread = z * sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At the ends the bound is exact; floats would miss it by a rounding.
    low = 0.0 if successes == 0 else (centre - spread) / scale
    high = 1.0 if successes == n else (centre + spread) / scale
    return low, high


def difference(a: int, n_a: int, b: int, n_b: int) -> tuple[float, float]:
    """A 95 % interval for the difference of two rates, a/n_a - b/n_b (Newcombe 1998, method 10).

    >>> low, high = difference(56, 70, 48, 80)
    >>> round(low, 4), round(high, 4)
    (0.0524, 0.3339)
    """
    rate_a, rate_b = a / n_a, b / n_b
    (low_a, high_a), (low_b, high_b) = wilson(a, n_a), wilson(b, n_b)
    gap = rate_a - rate_b
    low = gap - ((rate_a - low_a) ** 2 + (high_b - rate_b) ** 2) ** 0.5
    high = gap + ((high_a - rate_a) ** 2 + (rate_b - low_b) ** 2) ** 0.5
    return low, high


@dataclass(frozen=True)
class RunMetrics:
    """What `measure` found in one run; a store keeps a column of each.

    valid_code and why_invalid judge the first fenced block (see `pycode.check_text`); loop_start
    is a token, loop_period counts tokens (words and marks where only the text shows the loop).
    """

    valid_code: bool
    why_invalid: str
    loop: bool
    loop_start: int | None
    loop_period: int | None
    loop_repeats: float
    runaway: bool
    seq_rep_4: float
    distinct_2: float
    escape_rate: float
    n_tokens: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values; `RunMetrics(**values)` is its inverse."""
        return asdict(self)


def measure(run: Run) -> RunMetrics:
    """All that is counted in one run."""
    code = check_text(run.text)
    loop = find_run_loop(run)
    return RunMetrics(
        valid_code=code.valid,
        why_invalid=code.reason,
        loop=loop is not None,
        loop_start=None if loop is None else loop.start,
        loop_period=None if loop is None else loop.period,
        loop_repeats=0.0 if loop is None else loop.repeats,
        runaway=run.runaway,
        seq_rep_4=seq_rep_n(run.tokens, 4),
        distinct_2=distinct_n(run.tokens, 2),
        escape_rate=escape_rate([run]),
        n_tokens=len(run.tokens),
    )
