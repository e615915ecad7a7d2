"""The experiment: what the repeat penalty does, and what the order of samplers does, taken apart.

The article compared its list of samplers with llama.cpp's default. The two differ in three things
at once: whether `penalties` is in the list, the order, and min_p. Here one thing changes at a time:
{penalties in, out} x {llama.cpp's order, the article's} at repeat_penalty 1.1 and 1.5, beside no
penalty and greedy. All arms with a repeat penalty have the article's DRY too, so what `penalties`
and the order do is judged against the arm that has DRY alone. The full experiment adds min_p, and
Qwen's own remedy, a presence penalty. Short prompts ask for code, long ones invite loops.

A model that thinks gets tokens for its thinking beside those for its answer, and both are judged
apart: `metrics` counts thinking that loops or never ends, and the program of the answer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from .. import paths
from ..llamacpp import INT_MAX, Loading, check_number
from ..models import (
    SMALL,
    Conversation,
    GGUFInfo,
    check_room,
    inspect,
    is_embedded,
    model_path,
    read_specials,
    render_many,
    sweep_copy,
)
from ..sampling import (
    ARTICLE_ORDER,
    ARTICLE_ORDER_WITH_PENALTIES,
    CLOSE,
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
from .sweeps import WIDTH, OnRun, Source, sweep

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

PRESENCE_PENALTIES = (1.0, 2.0)  # QwQ-32B's card: between 0 and 2, against endless repetitions

# The fastest attention whose sums do not depend on the batch (`Engine.width_independent`).
LOADING = Loading(device="none", flash_attn="on", cache_type_k="q8_0", cache_type_v="q8_0")
# The same for a model that is too large for that, on a GPU where there is one.
AS_IT_IS = Loading(flash_attn="on", cache_type_k="q8_0", cache_type_v="q8_0")


@dataclass(frozen=True)
class Grid:
    """How much is run for each arm: prompts and seeds, and tokens a run.

    A model that thinks may write `thinking_tokens` more. It is one budget: what the thinking leaves
    is the answer's.
    """

    code_prompts: int
    code_seeds: int
    code_tokens: int
    long_prompts: int
    long_seeds: int
    long_tokens: int
    thinking_tokens: int = 0


QUICK = Grid(8, 1, 200, 2, 1, 300, thinking_tokens=1000)
FULL = Grid(12, 4, 260, 8, 1, 800, thinking_tokens=4000)


def plan_grid(
    quick: bool, thinking_tokens: int | None = None, answer_tokens: int | None = None
) -> Grid:
    """Return QUICK or FULL with other budgets, where they are given.

    Raise SettingError for a budget that is no number of tokens.
    """
    grid = QUICK if quick else FULL
    if thinking_tokens is not None:
        check_number("thinking_tokens", thinking_tokens, int, 0, INT_MAX)
        grid = replace(grid, thinking_tokens=thinking_tokens)
    if answer_tokens is not None:
        check_number("answer_tokens", answer_tokens, int, 1, INT_MAX)
        grid = replace(grid, code_tokens=answer_tokens, long_tokens=answer_tokens)
    return grid


@dataclass(frozen=True)
class ArmResult:
    """The counts of one arm. Intervals are Wilson's, 95 %, as fractions.

    runs and valid_code count runs of code prompts; long_runs, loops and runaways runs of long
    ones, and answer_loops those of the loops that are in an answer. thinking counts runs of either
    kind that think; of these thinking_loops think in a cycle, and unclosed never end to think.
    escape_rate, seq_rep_4 and mean_tokens are over both; texts_sha256 is a hash of all texts.
    """

    name: str
    order: tuple[str, ...]
    repeat_penalty: float
    presence_penalty: float
    min_p: float
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
    answer_loops: int
    thinking: int
    thinking_loops: int
    unclosed: int
    escape_rate: float
    seq_rep_4: float
    mean_tokens: float
    texts_sha256: str

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return asdict(self)


def list_arms() -> dict[str, Sampling]:
    """Return the arms of penalties and orders, by name."""
    official = PRESETS["official"]
    arms = {"no penalty": official, "greedy": official.with_(temp=0.0)}
    for penalty in PENALTIES:
        for name, order in ORDERS.items():
            arms[f"{name}, {penalty}"] = official.with_(
                samplers=order, repeat_penalty=penalty, dry_multiplier=DRY_MULTIPLIER
            )
    return arms


def list_more_arms() -> dict[str, Sampling]:
    """Return the arms of the full experiment alone: min_p, and Qwen's own remedy, by name."""
    official = PRESETS["official"]
    arms = {
        "no penalty, min_p 0.1": official.with_(min_p=0.1),
        "llama.cpp order, 1.1, min_p 0.1": PRESETS["article_without_fix"],
    }
    for penalty in PRESENCE_PENALTIES:
        arms[f"presence penalty, {penalty}"] = official.with_(presence_penalty=penalty)
    return arms


def read_prompts(name: str, info: GGUFInfo | None = None) -> list[str]:
    """Return the prompts of data/prompts/`name`.json, in ChatML with no system message.

    info: of a model whose own chat template makes the prompts instead, if it has one. Raise
    ChatError if that template does not render.
    """
    path = paths.data_dir() / "prompts" / f"{name}.json"
    texts = [p["text"] for p in json.loads(path.read_text(encoding="utf-8"))]
    if info is None or info.chat_template is None:
        return [CHATML.format(text) for text in texts]
    specials = read_specials(info.path)
    if info.tokenizer.add_bos:  # the tokenizer adds it, and a second one would follow
        specials["bos_token"] = ""
    asked = [Conversation.ask(text) for text in texts]
    return render_many(info.chat_template, asked, variables=specials)


def may_think(info: GGUFInfo) -> bool:
    """Return whether a model's template speaks of `</think>`."""
    return CLOSE in (info.chat_template or "")


def plan_requests(
    grid: Grid, info: GGUFInfo | None = None, arms: Mapping[str, Sampling] | None = None
) -> list[Request]:
    """Return every run of the experiment: a label is "arm | code" or "arm | long".

    Each prompt has seeds of its own: one seed draws the same numbers for every prompt, and runs
    that share their luck would make the intervals too narrow. All arms share them.

    info: as `read_prompts` takes it; a model whose template speaks of `</think>` may think. arms:
    those of `list_arms`, if none are given.
    """
    more = grid.thinking_tokens if info is not None and may_think(info) else 0
    kinds = (
        ("code", grid.code_prompts, grid.code_seeds, grid.code_tokens + more),
        ("long", grid.long_prompts, grid.long_seeds, grid.long_tokens + more),
    )
    return [
        Request(prompt, sampling, 100 * place + repeat, n_predict, f"{arm} | {kind}")
        for kind, n_prompts, seeds, n_predict in kinds
        for prompts in [read_prompts(kind, info)[:n_prompts]]
        for arm, sampling in (list_arms() if arms is None else arms).items()
        for place, prompt in enumerate(prompts)
        for repeat in range(seeds)
    ]


def open_engine(model: str = "smollm2-135m", exact: bool = False) -> Engine:
    """Return an engine for sweeps: of a small model the lab's requantised copy, with LOADING.

    A model of more than SMALL bytes runs as it is, on a GPU where there is one, over a cache in 8
    bits. `exact` asks for its copy too, on the CPU: then runs do not depend on what is beside them
    in a batch (`Engine.width_independent`). Raise ModelFileError if memory or disk has no room for
    that copy.
    """
    path = model_path(model)
    info = inspect(path)
    if info.n_bytes <= SMALL and info.n_parts == 1:
        return Engine(sweep_copy(path), LOADING)
    if not exact:
        return Engine(path, AS_IT_IS)
    check_room(info, FULL.long_tokens + FULL.thinking_tokens, "none", "Q8_0")
    return Engine(sweep_copy(path), LOADING)


def run_experiment(
    engine: Engine,
    quick: bool = False,
    store: RunStore | None = None,
    on_run: OnRun | None = None,
    cluster: str = "",
    grid: Grid | None = None,
) -> list[Run]:
    """Run what the store does not hold yet of the experiment; return all its runs.

    The embedded model's prompts are in ChatML, without the system message of its template: those
    of the published counts. Another model's own template makes its prompts.

    cluster: a Dask scheduler's address, whose workers then run it instead of `engine`. grid: other
    budgets than QUICK's or FULL's.
    """
    info = None if is_embedded(engine.info.path) else engine.info
    arms = list_arms() if quick else {**list_arms(), **list_more_arms()}
    requests = plan_requests(grid or plan_grid(quick), info, arms)
    if not cluster:
        return sweep(engine, requests, store, "reproduce", on_run=on_run)
    from .cluster import sweep_on

    source = Source.of(engine.path, engine.loading)
    width = WIDTH if engine.width_independent else 1
    return sweep_on(cluster, source, requests, store, "reproduce", width, on_run)


def count_arms(runs: Sequence[Run]) -> list[ArmResult]:
    """Return the result of each arm that has runs, labelled as `plan_requests` labels them."""
    arms: dict[str, list[Run]] = {}
    for run in runs:
        arms.setdefault(run.request.label.rsplit(" | ", 1)[0], []).append(run)
    return [_count_arm(name, arms[name][0].request.sampling, arms[name]) for name in arms]


def _count_arm(name: str, sampling: Sampling, runs: Sequence[Run]) -> ArmResult:
    measured = [(run, measure(run)) for run in runs]
    code = [m for run, m in measured if run.request.label.endswith("| code")]
    long = [m for run, m in measured if run.request.label.endswith("| long")]
    valid = sum(m.valid_code for m in code)
    loops, runaways = sum(m.loop for m in long), sum(m.runaway for m in long)
    thinking = [m for _, m in measured if m.thinking]
    texts = json.dumps([run.text for run in runs]).encode()
    return ArmResult(
        name=name,
        order=sampling.samplers,
        repeat_penalty=sampling.repeat_penalty,
        presence_penalty=sampling.presence_penalty,
        min_p=sampling.min_p,
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
        answer_loops=sum(m.answer_loop for m in long),
        thinking=len(thinking),
        thinking_loops=sum(m.thinking_loop for m in thinking),
        unclosed=sum(m.unclosed for m in thinking),
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
        if mild.texts_sha256 == strong.texts_sha256:
            lines.append(f"{order}: 1.1 and 1.5 gave identical texts.")
        else:
            lines.append(
                f"{order}: 1.1 and 1.5 gave different texts. Neither has any effect there, so the "
                "arithmetic of the batch differed: that of an exact run does not."
            )
    for name in list_more_arms():
        if name in arms:
            first = "llama.cpp order, 1.1"
            other = arms[first if name.startswith(first) else "no penalty"]
            lines.append(f"{name}, against {other.name}: {_compare(arms[name], other)}")
    if plain.thinking:
        lines.append(
            f"The model thinks. With no penalty {plain.unclosed} of {plain.thinking} runs never "
            f"ended to, {plain.thinking_loops} thought in a cycle, and {plain.answer_loops} of "
            f"{plain.long_runs} long answers looped."
        )
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
