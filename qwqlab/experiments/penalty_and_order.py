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

from collections.abc import Mapping
from dataclasses import dataclass, replace

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
    MARCH_2025,
    PRESETS,
    Engine,
    Request,
    Run,
    Sampling,
)
from .store import RunStore
from .sweeps import WIDTH, OnRun, Source, sweep
from .tasks import KINDS, read_tasks

CHATML = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
ORDERS = {
    "llama.cpp order": DEFAULT_ORDER,
    "article's list": ARTICLE_ORDER,
    "article's list with penalties": ARTICLE_ORDER_WITH_PENALTIES,
}
DRY_ALONE = "DRY alone"  # in llama.cpp's order, with `penalties` taken out
PENALTIES = (1.1, 1.5)
# The article's, in all arms that have a repeat penalty: with a window of its whole context.
DRY = {"dry_multiplier": 0.5, "dry_penalty_last_n": MARCH_2025.dry_penalty_last_n}

PRESENCE_PENALTIES = (1.0, 2.0)  # QwQ-32B's card: between 0 and 2, against endless repetitions

# The fastest attention whose sums do not depend on the batch (`Engine.width_independent`).
LOADING = Loading(device="none", flash_attn="on", cache_type_k="q8_0", cache_type_v="q8_0")
# The same for a model that is too large for that, on a GPU where there is one.
AS_IT_IS = Loading(flash_attn="on", cache_type_k="q8_0", cache_type_v="q8_0")


@dataclass(frozen=True)
class Part:
    """How much is run of one kind of task: prompts, seeds of each, and tokens a run."""

    prompts: int
    seeds: int
    tokens: int


_NOTHING = Part(0, 0, 0)


@dataclass(frozen=True)
class Grid:
    """How much is run for each arm, by kind of task (see `tasks`).

    A model that thinks may write `thinking_tokens` more. It is one budget: what the thinking leaves
    is the answer's.
    """

    code: Part = _NOTHING
    long: Part = _NOTHING
    copy: Part = _NOTHING
    thinking_tokens: int = 0


QUICK = Grid(Part(8, 1, 200), Part(2, 1, 300), thinking_tokens=1000)
FULL = Grid(Part(120, 1, 260), Part(104, 1, 1000), Part(60, 1, 200), thinking_tokens=4000)


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
        parts = {kind: replace(getattr(grid, kind), tokens=answer_tokens) for kind in KINDS}
        grid = replace(grid, **parts)
    return grid


def list_arms() -> dict[str, Sampling]:
    """Return the arms of penalties and orders, by name."""
    official = PRESETS["official"]
    without = tuple(name for name in DEFAULT_ORDER if name != "penalties")
    arms = {
        "no penalty": official,
        "greedy": official.with_(temp=0.0),
        DRY_ALONE: official.with_(samplers=without, **DRY),
    }
    for penalty in PENALTIES:
        for name, order in ORDERS.items():
            arms[f"{name}, {penalty}"] = official.with_(
                samplers=order, repeat_penalty=penalty, **DRY
            )
    return arms


def list_more_arms() -> dict[str, Sampling]:
    """Return the arms of the full experiment alone, by name.

    They are min_p, DRY with today's window, and Qwen's own remedy.
    """
    official, without = PRESETS["official"], list_arms()[DRY_ALONE].samplers
    arms = {
        "no penalty, min_p 0.1": official.with_(min_p=0.1),
        "llama.cpp order, 1.1, min_p 0.1": PRESETS["article_without_fix"],
        f"{DRY_ALONE}, window 64": official.with_(
            samplers=without, dry_multiplier=DRY["dry_multiplier"]
        ),
    }
    for penalty in PRESENCE_PENALTIES:
        arms[f"presence penalty, {penalty}"] = official.with_(presence_penalty=penalty)
    return arms


def read_prompts(kind: str, info: GGUFInfo | None = None) -> list[str]:
    """Return the prompts of one kind of task (see `read_tasks`), in ChatML with no system message.

    info: of a model whose own chat template makes the prompts instead, if it has one. Raise
    ChatError if that template does not render.
    """
    texts = [task.text for task in read_tasks(kind)]
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
    """Return every run of the experiment: a label is "arm | code", "arm | long" and so on.

    Each prompt has seeds of its own: one seed draws the same numbers for every prompt, and runs
    that share their luck would make the intervals too narrow. All arms share them.

    info: as `read_prompts` takes it; a model whose template speaks of `</think>` may think. arms:
    those of `list_arms`, if none are given.
    """
    more = grid.thinking_tokens if info is not None and may_think(info) else 0
    parts = [(kind, getattr(grid, kind)) for kind in KINDS]
    return [
        Request(prompt, sampling, 100 * place + repeat, part.tokens + more, f"{arm} | {kind}")
        for kind, part in parts
        if part.prompts
        for prompts in [read_prompts(kind, info)[: part.prompts]]
        for arm, sampling in (list_arms() if arms is None else arms).items()
        for place, prompt in enumerate(prompts)
        for repeat in range(part.seeds)
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
    check_room(info, FULL.long.tokens + FULL.thinking_tokens, "none", "Q8_0")
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
