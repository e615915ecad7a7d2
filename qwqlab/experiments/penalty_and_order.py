"""The experiment: what the repeat penalty does, and what the order of samplers does, taken apart.

The article compared its list of samplers with llama.cpp's default. The two differ in three things
at once: whether `penalties` is in the list, the order, and min_p. Here one thing changes at a time:
{penalties in, out} x {llama.cpp's order, the article's} at repeat_penalty 1.1 and 1.5, beside no
penalty and greedy. All arms with a repeat penalty have the article's DRY too, so what `penalties`
and the order do is judged against the arm that has DRY alone. Short prompts ask for code, long ones
invite loops.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .. import paths
from ..llamacpp import Loading
from ..models import model_path, sweep_copy
from ..sampling import (
    ARTICLE_ORDER,
    ARTICLE_ORDER_WITH_PENALTIES,
    DEFAULT_ORDER,
    PRESETS,
    Engine,
    Request,
    Run,
    Sampling,
)
from ..stats import difference, wilson
from .metrics import escape_rate, measure
from .store import RunStore
from .sweeps import OnRun, Source, sweep

CHATML = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
DRY_ALONE = "llama.cpp order without penalties"
ORDERS = {
    "llama.cpp order": DEFAULT_ORDER,
    DRY_ALONE: tuple(name for name in DEFAULT_ORDER if name != "penalties"),
    "article's list": ARTICLE_ORDER,
    "article's list with penalties": ARTICLE_ORDER_WITH_PENALTIES,
}
PENALTIES = (1.1, 1.5)
DRY_MULTIPLIER = 0.5  # the article's, in all arms that have a penalty

# The fastest attention whose sums do not depend on the batch (`Engine.width_independent`).
LOADING = Loading(device="none", flash_attn="on", cache_type_k="q8_0", cache_type_v="q8_0")


@dataclass(frozen=True)
class Grid:
    """How much is run for each arm: prompts and seeds, and tokens a run."""

    code_prompts: int
    code_seeds: int
    code_tokens: int
    long_prompts: int
    long_seeds: int
    long_tokens: int


QUICK = Grid(8, 1, 200, 2, 1, 300)
FULL = Grid(12, 4, 260, 8, 1, 800)


@dataclass(frozen=True)
class ArmResult:
    """The counts of one arm. Intervals are Wilson's, 95 %, as fractions.

    runs and valid_code count runs of code prompts; long_runs, loops and runaways runs of long
    ones. escape_rate, seq_rep_4 and mean_tokens are over both; texts_sha256 is a hash of all texts.
    """

    name: str
    order: tuple[str, ...]
    repeat_penalty: float
    dry_multiplier: float
    temperature: float
    runs: int
    valid_code: int
    valid_code_interval: tuple[float, float]
    long_runs: int
    loops: int
    loops_interval: tuple[float, float]
    runaways: int
    runaways_interval: tuple[float, float]
    escape_rate: float
    seq_rep_4: float
    mean_tokens: float
    texts_sha256: str

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return asdict(self)


def list_arms() -> dict[str, Sampling]:
    """Return the arms, by name."""
    official = PRESETS["official"]
    arms = {"no penalty": official, "greedy": official.with_(temp=0.0)}
    for penalty in PENALTIES:
        for name, order in ORDERS.items():
            arms[f"{name}, {penalty}"] = official.with_(
                samplers=order, repeat_penalty=penalty, dry_multiplier=DRY_MULTIPLIER
            )
    return arms


def read_prompts(name: str) -> list[str]:
    """Return the prompts of data/prompts/`name`.json, in ChatML with no system message."""
    path = paths.data_dir() / "prompts" / f"{name}.json"
    return [CHATML.format(p["text"]) for p in json.loads(path.read_text(encoding="utf-8"))]


def plan_requests(grid: Grid) -> list[Request]:
    """Return every run of the experiment: a label is "arm | code" or "arm | long".

    Each prompt has seeds of its own: one seed draws the same numbers for every prompt, and runs
    that share their luck would make the intervals too narrow. All arms share them.
    """
    kinds = (
        ("code", read_prompts("code")[: grid.code_prompts], grid.code_seeds, grid.code_tokens),
        ("long", read_prompts("long")[: grid.long_prompts], grid.long_seeds, grid.long_tokens),
    )
    return [
        Request(prompt, sampling, 100 * place + repeat, n_predict, f"{arm} | {kind}")
        for kind, prompts, seeds, n_predict in kinds
        for arm, sampling in list_arms().items()
        for place, prompt in enumerate(prompts)
        for repeat in range(seeds)
    ]


def open_engine(model: str = "smollm2-135m") -> Engine:
    """Return an engine for sweeps: the lab's requantised copy of a model, with LOADING."""
    return Engine(sweep_copy(model_path(model)), LOADING)


def run_experiment(
    engine: Engine,
    quick: bool = False,
    store: RunStore | None = None,
    on_run: OnRun | None = None,
    cluster: str = "",
) -> list[Run]:
    """Run what the store does not hold yet of the experiment; return all its runs.

    cluster: a Dask scheduler's address, whose workers then run it instead of `engine`.
    """
    requests = plan_requests(QUICK if quick else FULL)
    if not cluster:
        return sweep(engine, requests, store, "reproduce", on_run=on_run)
    from .cluster import sweep_on

    source = Source.of(engine.path, engine.loading)
    return sweep_on(cluster, source, requests, store, "reproduce", on_run=on_run)


def count_arms(runs: Sequence[Run]) -> list[ArmResult]:
    """Return the result of each arm, from runs labelled as `plan_requests` labels them."""
    return [
        _count_arm(name, sampling, [r for r in runs if r.request.label.startswith(f"{name} | ")])
        for name, sampling in list_arms().items()
    ]


def _count_arm(name: str, sampling: Sampling, runs: Sequence[Run]) -> ArmResult:
    measured = [(run, measure(run)) for run in runs]
    code = [m for run, m in measured if run.request.label.endswith("| code")]
    long = [m for run, m in measured if run.request.label.endswith("| long")]
    valid = sum(m.valid_code for m in code)
    loops, runaways = sum(m.loop for m in long), sum(m.runaway for m in long)
    texts = json.dumps([run.text for run in runs]).encode()
    return ArmResult(
        name=name,
        order=sampling.samplers,
        repeat_penalty=sampling.repeat_penalty,
        dry_multiplier=sampling.dry_multiplier,
        temperature=sampling.temp,
        runs=len(code),
        valid_code=valid,
        valid_code_interval=wilson(valid, len(code)),
        long_runs=len(long),
        loops=loops,
        loops_interval=wilson(loops, len(long)),
        runaways=runaways,
        runaways_interval=wilson(runaways, len(long)),
        escape_rate=escape_rate(runs),
        seq_rep_4=sum(m.seq_rep_4 for _, m in measured) / max(1, len(measured)),
        mean_tokens=sum(len(run.tokens) for run in runs) / max(1, len(runs)),
        texts_sha256=hashlib.sha256(texts).hexdigest(),
    )


def summarize(results: Sequence[ArmResult]) -> str:
    """Return what the counts show, in sentences; differences are given as 95 % intervals."""
    arms = {arm.name: arm for arm in results}
    plain, greedy = arms["no penalty"], arms["greedy"]
    dry = arms[f"{DRY_ALONE}, {PENALTIES[0]}"]
    lines = [
        f"With no penalty at all {plain.valid_code} of {plain.runs} programs were valid, and "
        f"{plain.loops} of {plain.long_runs} long runs looped.",
        f"Greedy, that is, at temperature 0, against that: {_compare(greedy, plain)}",
        f"DRY alone ({DRY_ALONE}), against no penalty: {_compare(dry, plain)}",
        "Each of the following has the same DRY, and is judged against DRY alone.",
    ]
    for order in ("llama.cpp order", "article's list with penalties", "article's list"):
        for penalty in PENALTIES:
            arm = arms[f"{order}, {penalty}"]
            lines.append(f"{arm.name}: {_compare(arm, dry)}")
    for penalty in PENALTIES:
        own = arms[f"article's list with penalties, {penalty}"]
        theirs = arms[f"llama.cpp order, {penalty}"]
        verdict = _judge_difference(own.valid_code, own.runs, theirs.valid_code, theirs.runs)
        lines.append(
            f"The order alone, with `penalties` in it at {penalty}: {own.valid_code} of {own.runs} "
            f"valid programs in the article's, {theirs.valid_code} in llama.cpp's, {verdict}."
        )
    for order in ("article's list", DRY_ALONE):
        mild, strong = (arms[f"{order}, {penalty}"] for penalty in PENALTIES)
        same = "identical" if mild.texts_sha256 == strong.texts_sha256 else "different"
        lines.append(f"{order}: 1.1 and 1.5 gave {same} texts.")
    return "\n".join(lines)


def _compare(arm: ArmResult, other: ArmResult) -> str:
    code = _judge_difference(arm.valid_code, arm.runs, other.valid_code, other.runs)
    loops = _judge_difference(arm.loops, arm.long_runs, other.loops, other.long_runs)
    return (
        f"{arm.valid_code} of {arm.runs} programs valid, {code}; "
        f"{arm.loops} of {arm.long_runs} long runs looped"
        + (f", {loops}." if arm.loops or other.loops else ".")
    )


def _judge_difference(a: int, n_a: int, b: int, n_b: int) -> str:
    """Return in words whether a/n_a is more or fewer than b/n_b.

    >>> _judge_difference(0, 48, 41, 48)
    'fewer (-93% to -71%)'
    >>> _judge_difference(1, 8, 2, 8)
    'no difference that these runs can show (-48% to +26%)'
    """
    low, high = difference(a, n_a, b, n_b)
    verdict = (
        "fewer" if high < 0 else "more" if low > 0 else "no difference that these runs can show"
    )
    return f"{verdict} ({low:+.0%} to {high:+.0%})"
