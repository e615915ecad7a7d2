"""Where a drawn token stands in the model's own distribution, before any penalty moved it.

The raw nucleus is what llama.cpp's `top_k;top_p` would leave of the raw logits. A token drawn
from outside it, an escape, is one that truncation alone would never have let through: a penalty
lifted it over what it pushed down.
"""

from __future__ import annotations

import numpy as np

from .native import Matrix

# Cumulative sums of float32 in llama.cpp and of float64 here may part in the last digits.
TOLERANCE = 1e-6
# So far below the largest logit stand enough candidates for a usual top_k, and few to sort.
WINDOW = 8.0


def locate(logits: Matrix, token: int, top_k: int, top_p: float) -> tuple[int, bool]:
    """Rank of a token in one row of logits (0: the most likely), and whether it is an escape.

    >>> locate(np.log(np.array([0.6, 0.3, 0.1], dtype=np.float32)), 2, top_k=0, top_p=0.85)
    (2, True)
    """
    logit = logits[token]
    rank = int(np.count_nonzero(logits > logit))
    if rank == 0:
        return 0, False
    if 0 < top_k <= rank:
        return rank, True
    if top_p >= 1:
        return rank, False
    kept = _largest(logits, top_k) if 0 < top_k < len(logits) else logits
    weights = np.exp((kept - kept.max()).astype(np.float64))
    above = weights[kept > logit].sum() / weights.sum()
    return rank, bool(above >= top_p + TOLERANCE)


def _largest(logits: Matrix, count: int) -> Matrix:
    near = logits[np.flatnonzero(logits > logits.max() - WINDOW)]
    return np.partition(near if len(near) >= count else logits, -count)[-count:]
