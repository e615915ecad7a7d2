"""One step of a run under the microscope, and the same step under other settings.

A Probe holds a run and the logits it was drawn from. It runs llama.cpp's own stages one at a time
on them, so what it shows is what happened, not a model of it. With another Sampling it answers a
question that no second run can: what would this one change have done at this very step, with the
same logits and the same random draw?
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..llamacpp import Matrix
from .chain import Candidates, Chain
from .engine import Engine
from .nucleus import locate
from .run import Request, Run
from .sampling import Sampling

# Below this change of a log-probability a stage only renormalised what others had done.
MOVED = 1e-4


@dataclass(frozen=True)
class StageView:
    """The candidates that a stage left, in the order in which it left them.

    ids: int32, logits: float32, of the same length. Probabilities are the softmax of the logits
    that are left, so each stage shows a distribution.
    """

    name: str
    ids: npt.NDArray[np.int32]
    logits: npt.NDArray[np.float32]

    @cached_property
    def probs(self) -> npt.NDArray[np.float64]:
        """The probability of each candidate; they sum to 1."""
        weights = np.exp((self.logits - self.logits.max(initial=-np.inf)).astype(np.float64))
        return np.asarray(weights / weights.sum())

    def top(self, count: int) -> list[int]:
        """Return the `count` most likely tokens, the most likely first."""
        count = min(count, len(self.ids))
        best: Iterable[int] = (
            np.argpartition(-self.logits, count - 1)[:count].tolist() if count else []
        )
        return [int(self.ids[i]) for i in sorted(best, key=lambda i: -self.logits[i])]

    def find(self, token: int) -> tuple[float, float] | None:
        """Return logit and probability of a token, or None if it was removed."""
        place = np.flatnonzero(self.ids == token)
        return (float(self.logits[place[0]]), float(self.probs[place[0]])) if len(place) else None


@dataclass(frozen=True)
class StepView:
    """A step, stage by stage.

    raw:    the model's own distribution, before any stage.
    stages: a view after each stage of the chain; the last one drew `token`.
    draw:   the uniform random number, 0 to 1, that picked the token (None where Mirostat or
            adaptive_p draws).
    rank:   of the token in the raw distribution, 0 the most likely.
    escape: whether the token is outside what top_k and top_p leave of the raw distribution.
    """

    step: int
    raw: StageView
    stages: tuple[StageView, ...]
    token: int
    draw: float | None
    rank: int
    escape: bool

    def removed_by(self, token: int) -> str | None:
        """Return the stage that removed a token, or None if it was still there for the draw."""
        return next((stage.name for stage in self.stages if stage.find(token) is None), None)

    def moved_by(self, token: int) -> tuple[str, ...]:
        """Return the stages that changed a token's logit."""
        before, moved = self.raw.find(token), []
        for stage in self.stages:
            after = stage.find(token)
            if before is None or after is None:
                break
            if abs(after[0] - before[0]) > MOVED:
                moved.append(stage.name)
            before = after
        return tuple(moved)


@dataclass(frozen=True)
class Detour:
    """The first step at which another Sampling would have drawn another token, and why.

    token is the run's own, other the one that the other Sampling draws.
    """

    step: int
    token: int
    other: int
    why: str


class Probe:
    """A run and its logits, shape (tokens, n_vocab). Make one with `Probe.of`."""

    def __init__(self, engine: Engine, run: Run, logits: Matrix) -> None:
        self.engine, self.run, self.logits = engine, run, logits
        self._prompt = engine.model.tokenize(run.request.prompt)
        self._candidates = Candidates(engine.model.n_vocab)

    @classmethod
    def of(cls, engine: Engine, request: Request) -> Probe:
        """Run a request alone and keep its logits."""
        kept: dict[int, Matrix] = {}
        ((_, run),) = engine.run([request], width=1, keep_logits=kept)
        return cls(engine, run, kept[0])

    def step(self, step: int, sampling: Sampling | None = None) -> StepView:
        """Look at step `step` of the run, under its own Sampling or another one.

        Under another one the tokens so far, the logits and the random draw stay those of the run.
        """
        sampling = sampling or self.run.request.sampling
        if not 0 <= step < len(self.run.tokens):
            raise IndexError(f"step {step} is not in a run of {len(self.run.tokens)} tokens")
        with self._chain_at(step, sampling) as chain:
            self._candidates.fill(self.logits[step])
            raw = self._look("raw")
            stages = []
            for index, name in enumerate(chain.names):
                chain.apply_stage(index, self._candidates)
                stages.append(self._look(name))
            token = self._candidates.selected()
        rank, escape = locate(self.logits[step], token, sampling.top_k, sampling.top_p)
        draw = self._draws[step] if chain.names[-1] == "dist" else None
        return StepView(step, raw, tuple(stages), token, draw, rank, escape)

    def replay(self, sampling: Sampling) -> Iterator[int]:
        """Yield the token that another Sampling would draw at each step of this run."""
        with self._chain_at(0, sampling) as chain:
            for row, token in zip(self.logits, self.run.tokens, strict=True):
                self._candidates.fill(row)
                chain.apply(self._candidates)
                yield self._candidates.selected()
                chain.accept([token])

    def find_detour(self, sampling: Sampling) -> Detour | None:
        """Find the first step at which another Sampling leaves this run; None if it never does."""
        for step, other in enumerate(self.replay(sampling)):
            token = self.run.tokens[step]
            if token != other:
                why = self._explain(self.step(step), self.step(step, sampling))
                return Detour(step, token, other, why)
        return None

    def _chain_at(self, step: int, sampling: Sampling) -> Chain:
        """Make a chain in the state that it has before a step."""
        chain = Chain(self.engine.model, sampling, self.run.request.seed)
        chain.accept(self._prompt)
        if not _remembers_candidates(sampling):
            chain.accept(self.run.tokens[:step])
            chain.skip_draws(step)
            return chain
        for row, token in zip(self.logits[:step], self.run.tokens, strict=False):
            self._candidates.fill(row)
            chain.apply(self._candidates)
            chain.accept([token])
        return chain

    def _look(self, name: str) -> StageView:
        left = self._candidates.view()
        # A temperature of 0 leaves the others in the list, with a logit of minus infinity.
        left = left[np.isfinite(left["logit"])]
        return StageView(name, left["id"], left["logit"])

    @cached_property
    def _draws(self) -> npt.NDArray[np.float64]:
        """The numbers of std::uniform_real_distribution<double> on std::mt19937, one a step: two
        words of 32 bits a number, the low one first."""
        words = np.random.RandomState(self.run.request.seed).randint(
            0, 2**32, size=2 * len(self.run.tokens), dtype=np.uint32
        )
        low, high = words[::2].astype(np.float64), words[1::2].astype(np.float64)
        return (low + high * 2.0**32) / 2.0**64

    def _explain(self, mine: StepView, other: StepView) -> str:
        lost, won = (repr(self.engine.model.show(view.token)) for view in (mine, other))
        cause = " and ".join(f"`{stage}`" for stage in _new_movers(mine, other))
        if stage := other.removed_by(mine.token):
            first = f"{cause} moves the candidates, and " if cause else ""
            return f"{first}`{stage}` removes {lost}, so that {won} is drawn"
        if stage := mine.removed_by(other.token):
            return f"`{stage}` had removed {won}; without that the same random draw falls on it"
        before, after = (view.stages[-1].find(mine.token) for view in (mine, other))
        assert before is not None and after is not None
        return (
            f"with {cause or 'the new order'}, {lost} ends at probability {after[1]:.3g} instead "
            f"of {before[1]:.3g}, and the same random draw falls on {won}"
        )


def _new_movers(mine: StepView, other: StepView) -> list[str]:
    """Return the stages that move a likely token under the other Sampling and not under this."""
    moved = [
        {stage for token in view.raw.top(50) for stage in view.moved_by(token)}
        for view in (mine, other)
    ]
    return [stage.name for stage in other.stages if stage.name in moved[1] - moved[0]]


def _remembers_candidates(sampling: Sampling) -> bool:
    """Say whether the chain's state depends on earlier candidates, not on the tokens alone."""
    chain = sampling.chain()
    xtc = "xtc" in chain and sampling.xtc_probability > 0
    return xtc or chain[-1] != "dist"
