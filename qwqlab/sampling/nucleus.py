"""Where a drawn token is in the model's own distribution, before any penalty moved it.

The raw nucleus is what llama.cpp's `top_k;top_p` would leave of the raw logits. A token drawn
from outside it, an escape, is one that truncation alone would never have let through: a penalty
lifted it over what it pushed down.
"""

from __future__ import annotations

import numpy as np

from ..llamacpp import Matrix

# Cumulative sums of float32 in llama.cpp and of float64 here may part in the last digits.
TOLERANCE = 1e-6


def locate(logits: Matrix, token: int, top_k: int, top_p: float) -> tuple[int, bool]:
    """Return a token's rank in a row of logits (0: the most likely), and whether it is an escape.

    >>> locate(np.log(np.array([0.6, 0.3, 0.1], dtype=np.float32)), 2, top_k=0, top_p=0.85)
    (2, True)
    """
    logit = logits[token]
    is_above = logits > logit
    rank = int(np.count_nonzero(is_above))
    if rank == 0:
        return 0, False
    if 0 < top_k <= rank:
        return rank, True
    if top_p >= 1:
        return rank, False
    above = logits[np.flatnonzero(is_above)]
    top = above.max()
    mass = _weigh(above, top)
    # Usually its own weight settles it: whatever else is kept makes the share above it smaller.
    if mass < (top_p + TOLERANCE) * (mass + _weigh(logit, top)):
        return rank, False
    kept = np.partition(logits, -top_k)[-top_k:] if 0 < top_k < len(logits) else logits
    return rank, bool(mass >= (top_p + TOLERANCE) * _weigh(kept, top))


def _weigh(logits: Matrix | np.float32, top: np.float32) -> float:
    """Return the summed weight of tokens, of which one with logit `top` has 1."""
    return float(np.exp(np.subtract(logits, top, dtype=np.float64)).sum())
