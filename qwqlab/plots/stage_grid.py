"""One step of a run as plain arrays: what each stage of the chain left of the likeliest tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..engine import Engine
from ..probe import MOVED, StageView, StepView
from .drawing import name_token, percent

# Below this change of a probability an arrow would say nothing.
NOTABLE = 0.002


@dataclass(frozen=True)
class StageGrid:
    """What a stacked chart of the step shows. Rows are "raw" and the stages, columns are tokens.

    left:    candidates left after each row.
    probs:   (rows, columns), NaN once removed.
    others:  (rows,): the probability of all candidates that have no column.
    removed: (rows, columns): removed by this row's own stage.
    moved:   (rows, columns): 1 or -1 where the stage changed the logit and the probability rose
             or fell.
    drawn:   the column of the drawn token; run_token: that of the run's own token.
    """

    view: StepView
    rows: tuple[str, ...]
    tokens: tuple[int, ...]
    texts: tuple[str, ...]
    left: tuple[int, ...]
    probs: npt.NDArray[np.float64]
    others: npt.NDArray[np.float64]
    removed: npt.NDArray[np.bool_]
    moved: npt.NDArray[np.int_]
    shifts: npt.NDArray[np.float64]
    drawn: int
    run_token: int

    @property
    def title(self) -> str:
        """The step's outcome."""
        last = self.probs[-1, self.drawn]
        outside = ", from outside the raw nucleus" if self.view.escape else ""
        return (
            f"Step {self.view.step}: {self.texts[self.drawn]} is drawn at {percent(last)}{outside}"
        )

    @property
    def subtitle(self) -> str:
        """Where the drawn token stood before the chain."""
        raw = percent(self.probs[0, self.drawn])
        return f"raw probability {raw}, rank {self.view.rank} (0 is the most likely)"

    @property
    def summary(self) -> str:
        """What the chain did to the distribution, in one sentence."""
        most = int(np.argmax(self.shifts))
        change = f"no stage changes the distribution by more than {percent(0.001)}"
        if self.shifts[most] > 0.001:
            change = (
                f"`{self.rows[most + 1]}` changes the distribution most, moving "
                f"{percent(self.shifts[most])} of the probability"
            )
        other = ""
        if self.run_token != self.drawn:
            other = f" instead of the run's {self.texts[self.run_token]}"
        return (
            f"At step {self.view.step} the chain leaves {self.left[-1]:,} of {self.left[0]:,} "
            f"candidates, {change}, and {self.texts[self.drawn]} is drawn{other}."
        )

    def table(self) -> pd.DataFrame:
        """A row for each token: probabilities after each stage, and what removed or moved it."""
        frame = pd.DataFrame({"token": self.tokens, "text": self.texts})
        for row, name in enumerate(self.rows):
            frame[name] = self.probs[row]
        frame["removed by"] = [self._names(self.removed[:, i]) for i in range(len(self.tokens))]
        frame["moved by"] = [self._names(self.moved[:, i] != 0) for i in range(len(self.tokens))]
        return frame

    def _names(self, which: npt.NDArray[np.bool_]) -> str:
        return ", ".join(name for name, hit in zip(self.rows, which, strict=True) if hit)


def lay_out(
    view: StepView, engine: Engine, top: int = 20, run_token: int | None = None
) -> StageGrid:
    """The grid of a step. run_token: what the run drew there, if another token is drawn now."""
    run_token = view.token if run_token is None else run_token
    tokens = pick_tokens(view, top, run_token)
    n_vocab = engine.model.n_vocab
    stages = (view.raw, *view.stages)
    logits, probs, others, shifts = [], [], [], []
    before: npt.NDArray[np.float64] | None = None
    for stage in stages:
        spread_logits, spread = _spread(stage, n_vocab)
        logits.append(spread_logits[list(tokens)])
        gone = np.isnan(logits[-1])
        probs.append(np.where(gone, np.nan, spread[list(tokens)]))
        others.append(max(0.0, 1 - float(np.nansum(probs[-1]))))
        if before is not None:
            shifts.append(0.5 * float(np.abs(spread - before).sum()))
        before = spread
    logit, prob = np.array(logits), np.array(probs)
    gone = np.isnan(logit)
    change = np.nan_to_num(np.diff(prob, axis=0, prepend=prob[:1]))
    touched = np.abs(np.nan_to_num(np.diff(logit, axis=0, prepend=logit[:1]))) > MOVED
    moved = np.where(touched & (np.abs(change) > NOTABLE), np.sign(change), 0).astype(int)
    return StageGrid(
        view=view,
        rows=tuple(stage.name for stage in stages),
        tokens=tokens,
        texts=tuple(name_token(engine.model.show(token)) for token in tokens),
        left=tuple(len(stage.ids) for stage in stages),
        probs=prob,
        others=np.array(others),
        removed=gone & ~np.vstack([gone[:1], gone[:-1]]),
        moved=moved,
        shifts=np.array(shifts),
        drawn=tokens.index(view.token),
        run_token=tokens.index(run_token),
    )


def pick_tokens(view: StepView, top: int, run_token: int) -> tuple[int, ...]:
    """The columns: the most likely tokens of the raw distribution, then those that the chain
    brought up among the most likely ones, and always the drawn token and the run's own."""
    needed = [view.token, run_token, *view.stages[-1].top(max(1, top // 3))]
    raw = view.raw.top(top)
    extra = [token for token in dict.fromkeys(needed) if token not in raw]
    kept = [t for t in raw[: max(0, top - len(extra))] if t not in extra]
    late = [token for token in dict.fromkeys(needed) if token not in kept]
    return (*kept, *late)


def _spread(
    stage: StageView, n_vocab: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """A stage's logits and probabilities over the whole vocabulary: NaN and 0 where removed."""
    logits, probs = np.full(n_vocab, np.nan), np.zeros(n_vocab)
    logits[stage.ids] = stage.logits
    probs[stage.ids] = stage.probs
    return logits, probs
