"""What came of each arm: outcomes run by run, their rates with intervals, and what they show.

`count_arms` makes an `ArmResult` of the runs of an arm. `read_evidence` gives those that were
measured for this lab: data/evidence has a table for each model, outcomes and not texts. Arms have
the same prompts and seeds, so two of them are compared run by run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Any

from .. import paths, preflight
from ..errors import SettingError
from ..llamacpp import describe_build
from ..models import hash_model
from ..sampling import Engine, Run, Sampling
from ..stats import Paired, Rate, pair, rate
from .loops import find_loop
from .metrics import escape_rate, measure, number_prompts
from .penalty_and_order import DRY_ALONE, PENALTIES, list_more_arms
from .tasks import KINDS

EARLY = 500  # tokens after which we also ask whether a long run loops already


@dataclass(frozen=True)
class Measure:
    """Something that a run has or has not: its kind of task, and words for it.

    title: of a column; words: of what runs have it, behind a number and "of n".
    """

    kind: str
    title: str
    words: str


MEASURES = {
    "valid": Measure("code", "valid programs", "programs are valid"),
    "right": Measure("code", "right programs", "programs are right"),
    "loops": Measure("long", "loops", "long runs loop"),
    "early_loops": Measure("long", f"loops by {EARLY} tokens", f"loop by {EARLY} tokens"),
    "runaways": Measure("long", "runaways", "long runs do not end"),
    "answers": Measure("long", "answers", "long texts answer"),
    "copies": Measure("copy", "exact copies", "copies are exact"),
}


@dataclass(frozen=True)
class ArmResult:
    """The outcomes of one arm, for each run in the order of the grid.

    outcomes: by the name of a measure, "1" for each run that has it and "0" for each that has not.
    prompts:  by kind of task, the number of each run's prompt.
    texts:    by kind of task, the first 8 hexadecimal digits of the SHA-256 of each run's text.
    thinking counts runs that think; of these thinking_loops think in a cycle, and unclosed never
    end to think; answer_loops counts loops in an answer. escape_rate, seq_rep_4 and mean_tokens
    are over all runs.
    """

    name: str
    sampling: Sampling
    outcomes: dict[str, str]
    prompts: dict[str, tuple[int, ...]]
    texts: dict[str, tuple[str, ...]]
    thinking: int
    thinking_loops: int
    unclosed: int
    answer_loops: int
    escape_rate: float
    seq_rep_4: float
    mean_tokens: float

    def rate(self, measure: str) -> Rate:
        """Return how many runs have what a name of MEASURES stands for; of none, 0 of 0."""
        outcomes = _read(self.outcomes.get(measure, ""))
        return rate(outcomes, self.prompts.get(MEASURES[measure].kind, ()))

    def same_texts(self, other: ArmResult) -> bool:
        """Return whether both arms wrote the same texts."""
        return self.texts == other.texts

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values; `from_dict` is the inverse. The rates are there to be read."""
        plain, own = Sampling().to_dict(), self.sampling.to_dict()
        rates = {name: self.rate(name) for name in self.outcomes}
        return {
            "name": self.name,
            "sampling": {name: own[name] for name in own if own[name] != plain[name]},
            "rates": {
                name: {"count": each.count, "n": each.n, "interval": each.interval}
                for name, each in rates.items()
            },
            "outcomes": self.outcomes,
            "prompts": {kind: " ".join(map(str, each)) for kind, each in self.prompts.items()},
            "texts": {kind: " ".join(each) for kind, each in self.texts.items()},
            **{name: getattr(self, name) for name in _NUMBERS},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ArmResult:
        """Return the result that `to_dict` described."""
        return cls(
            name=values["name"],
            sampling=Sampling.from_dict(values["sampling"]),
            outcomes=values["outcomes"],
            prompts={k: tuple(map(int, each.split())) for k, each in values["prompts"].items()},
            texts={kind: tuple(each.split()) for kind, each in values["texts"].items()},
            **{name: values[name] for name in _NUMBERS},
        )


_NUMBERS = (
    "thinking", "thinking_loops", "unclosed", "answer_loops", "escape_rate", "seq_rep_4",
    "mean_tokens",
)  # fmt: skip


def _read(outcomes: str) -> list[bool]:
    return [each == "1" for each in outcomes]


@dataclass(frozen=True)
class Evidence:
    """What was measured on one model: the arms, and on what.

    model, model_sha256: the file that ran, a copy as a rule; build: of llama.cpp; machine: the
    processor and its vectors; date: of the count.
    """

    n_parameters: int
    model: str
    model_sha256: str
    build: str
    machine: str
    date: str
    arms: tuple[ArmResult, ...]

    @property
    def title(self) -> str:
        """The model's name with its quant, for a person."""
        return self.model.removesuffix(".gguf")

    @classmethod
    def of(cls, engine: Engine, arms: Sequence[ArmResult]) -> Evidence:
        """Return the evidence that an engine's runs are, today."""
        info = engine.info
        return cls(
            info.n_parameters,
            info.path.name,
            hash_model(info),
            describe_build(),
            f"{preflight.name_processor()} {preflight.name_vectors()}".strip(),
            date.today().isoformat(),
            tuple(arms),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values; `from_dict` is the inverse."""
        about = {name: getattr(self, name) for name in _ABOUT}
        return {**about, "arms": [arm.to_dict() for arm in self.arms]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evidence:
        """Return the evidence that `to_dict` described."""
        arms = tuple(map(ArmResult.from_dict, values["arms"]))
        return cls(**{name: values[name] for name in _ABOUT}, arms=arms)


_ABOUT = ("n_parameters", "model", "model_sha256", "build", "machine", "date")


@cache
def read_evidence(model: str) -> Evidence:
    """Return the table of data/evidence for a model, such as "smollm2-135m".

    Raise SettingError for a model that has none.
    """
    folder = paths.data_dir() / "evidence"
    path = folder / f"{model}.json"
    if not path.is_file():
        known = ", ".join(sorted(each.stem for each in folder.glob("*.json")))
        raise SettingError(f"there is no evidence on {model!r}; there is on {known}")
    return Evidence.from_dict(json.loads(path.read_text(encoding="utf-8")))


def list_evidence(kind: str) -> list[Evidence]:
    """Return the tables of all models that have runs of one kind of task, the small ones first."""
    names = (path.stem for path in (paths.data_dir() / "evidence").glob("*.json"))
    found = [read_evidence(name) for name in names]
    chosen = [each for each in found if any(kind in arm.prompts for arm in each.arms)]
    return sorted(chosen, key=lambda each: each.n_parameters)


def count_arms(runs: Sequence[Run]) -> list[ArmResult]:
    """Return the result of each arm that has runs, labelled as `plan_requests` labels them."""
    arms: dict[str, dict[str, list[Run]]] = {}
    for run in runs:
        arm, kind = run.request.label.rsplit(" | ", 1)
        arms.setdefault(arm, {}).setdefault(kind, []).append(run)
    return [_count_arm(name, kinds) for name, kinds in arms.items()]


def _count_arm(name: str, kinds: Mapping[str, Sequence[Run]]) -> ArmResult:
    runs = [run for kind in KINDS for run in kinds.get(kind, ())]
    measured = {kind: [measure(run) for run in some] for kind, some in kinds.items()}
    code, long = measured.get("code", []), measured.get("long", [])
    outcomes: dict[str, list[bool] | list[bool | None]] = {
        "valid": [each.valid_code for each in code],
        "right": [each.right for each in code],
        "loops": [each.loop for each in long],
        "early_loops": [_loops_early(run) for run in kinds.get("long", ())],
        "runaways": [each.runaway for each in long],
        "answers": [each.right for each in long],
        "copies": [each.right for each in measured.get("copy", ())],
    }
    every = [each for some in measured.values() for each in some]
    thinking = [each for each in every if each.thinking]
    return ArmResult(
        name=name,
        sampling=runs[0].request.sampling,
        outcomes={
            name: "".join("1" if each else "0" for each in found)
            for name, found in outcomes.items()
            if found and None not in found
        },
        prompts={kind: tuple(number_prompts(some)) for kind, some in kinds.items()},
        texts={kind: tuple(map(_hash, some)) for kind, some in kinds.items()},
        thinking=len(thinking),
        thinking_loops=sum(each.thinking_loop for each in thinking),
        unclosed=sum(each.unclosed for each in thinking),
        answer_loops=sum(each.answer_loop for each in long),
        escape_rate=escape_rate(runs),
        seq_rep_4=sum(each.seq_rep_4 for each in every) / len(every),
        mean_tokens=sum(each.n_tokens for each in every) / len(every),
    )


def _loops_early(run: Run) -> bool:
    """Return whether the first EARLY tokens end in a cycle; one that counts is not seen in them."""
    ended = run.stop == "end" and len(run.tokens) <= EARLY
    return find_loop(run.tokens[:EARLY], ended=ended) is not None


def _hash(run: Run) -> str:
    return hashlib.sha256(run.text.encode()).hexdigest()[:8]


def compare(arm: ArmResult, other: ArmResult, measure: str) -> Paired:
    """Return how a rate of an arm differs from another's, over the same prompts and seeds."""
    before, after = (_read(each.outcomes[measure]) for each in (other, arm))
    prompts = arm.prompts[MEASURES[measure].kind]
    return pair(measure, list(zip(before, after, strict=True)), prompts)


def say_difference(found: Paired) -> str:
    """Return a difference in words, with its 95 % interval in points.

    >>> from qwqlab.stats import pair
    >>> say_difference(pair("valid", [(True, False)] * 40 + [(True, True)] * 8))
    'fewer (-94 to -68 points)'
    """
    low, high = found.interval
    verdict = (
        "fewer" if high < 0 else "more" if low > 0 else "no difference that these runs can show"
    )
    return f"{verdict} ({100 * low:+.0f} to {100 * high:+.0f} points)"


def summarize(results: Sequence[ArmResult]) -> str:
    """Return what the counts show, in sentences; differences are given as 95 % intervals."""
    arms = {arm.name: arm for arm in results}
    plain, greedy = arms["no penalty"], arms["greedy"]
    dry = arms[DRY_ALONE]
    shown = [name for name in MEASURES if name in plain.outcomes and name != "early_loops"]
    lines = [
        f"With no penalty at all {_list(plain, shown)}.",
        f"Greedy, that is, at temperature 0, against that: {_compare(greedy, plain)}",
        f"{DRY_ALONE}, against no penalty: {_compare(dry, plain)}",
        f"Each of the following has the same DRY, and is judged against {DRY_ALONE}.",
    ]
    for order in ("llama.cpp order", "article's list with penalties", "article's list"):
        for penalty in PENALTIES:
            arm = arms[f"{order}, {penalty}"]
            lines.append(f"{arm.name}: {_compare(arm, dry)}")
    for penalty in PENALTIES:
        own = arms[f"article's list with penalties, {penalty}"]
        theirs = arms[f"llama.cpp order, {penalty}"]
        lines.append(
            f"The order alone, the article's against llama.cpp's with `penalties` in both at "
            f"{penalty}: {_compare(own, theirs)}"
        )
    mild, strong = (arms[f"article's list, {penalty}"] for penalty in PENALTIES)
    if mild.same_texts(strong):
        lines.append("article's list: 1.1 and 1.5 gave identical texts.")
    else:
        lines.append(
            "article's list: 1.1 and 1.5 gave different texts. Neither has any effect there, so "
            "the arithmetic of the batch differed: that of an exact run does not."
        )
    for name in list_more_arms():
        if name in arms:
            first = "llama.cpp order, 1.1"
            other = arms[first] if name.startswith(f"{first},") else plain
            other = dry if name.startswith(DRY_ALONE) else other
            lines.append(f"{name}, against {other.name}: {_compare(arms[name], other)}")
    if plain.thinking:
        lines.append(
            f"The model thinks. With no penalty {plain.unclosed} of {plain.thinking} runs never "
            f"ended to, {plain.thinking_loops} thought in a cycle, and {plain.answer_loops} long "
            "answers looped."
        )
    return "\n".join(lines)


def _list(arm: ArmResult, measures: Sequence[str]) -> str:
    """Return an arm's counts in words, as "23 of 32 programs are valid, 3 of 8 long runs loop"."""
    rates = [(arm.rate(name), MEASURES[name].words) for name in measures]
    return ", ".join(f"{each.count} of {each.n} {words}" for each, words in rates)


def _compare(arm: ArmResult, other: ArmResult) -> str:
    shown = [name for name in MEASURES if name in arm.outcomes and name != "early_loops"]
    parts = [f"{_list(arm, [name])}, {say_difference(compare(arm, other, name))}" for name in shown]
    return "; ".join(parts) + "."
