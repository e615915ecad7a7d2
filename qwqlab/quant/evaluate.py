"""What quantising costs a model's predictions: perplexity, KL divergence, agreement.

Every token of a text's blocks that llama-perplexity would score is scored: in blocks of 512 the
second half. A variant is the reference with the weights of some modules decoded from few bits:
what bitsandbytes multiplies with in float32, without loading the model again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .. import paths
from ..errors import SettingError
from .checkpoint import Checkpoint, check_room, list_linears
from .codecs import find_codec
from .decoded import Decoded
from .linears import HEAD
from .quality import Quality, score_block, scored_places, sum_up
from .skip_list import resolve
from .text_blocks import read_blocks

N_TOKENS = 4096


class Reference:
    """A model's predictions of a text, to compare variants of the model with.

    model:  of transformers, in float32. blocks: token ids, n_blocks x n_ctx; at least two blocks,
    or there is no interval. The log-probabilities are kept: 4 bytes for each scored token and each
    token of the vocabulary, 50 MB for a block of 512 with SmolLM2.
    """

    def __init__(self, model: Any, blocks: torch.Tensor) -> None:
        if len(blocks) < 2 or blocks.shape[1] < 8:
            raise SettingError(
                f"{blocks.numel()} tokens make {len(blocks)} block of text; an interval needs two "
                "or more. Give a longer text, or take more tokens of it."
            )
        self.model = model
        self.blocks = blocks
        self._logs = [predict(model, block) for block in blocks]

    def itself(self) -> Quality:
        """The reference against itself: no divergence, and its own perplexity."""
        pairs = zip(self.blocks, self._logs, strict=True)
        return sum_up([score_block(block, log, log) for block, log in pairs])

    def compare(self) -> Quality:
        """The model as it now is against what it was."""
        return sum_up([self.score(place) for place in range(len(self.blocks))])

    def score(self, place: int) -> torch.Tensor:
        """Surprise, divergence and agreement of each scored token of one block, 3 x n_scored."""
        block = self.blocks[place]
        return score_block(block, self._logs[place], predict(self.model, block))


def predict(model: Any, block: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of what follows each scored token of a block: n_scored x n_vocab."""
    with torch.inference_mode():
        logits = model(
            block[None], use_cache=False, logits_to_keep=scored_places(len(block))
        ).logits
        return torch.log_softmax(logits[0].float(), -1)


def evaluate(
    name: str | Path,
    codec: str | None = None,
    skip: Sequence[str] | None = None,
    text: str | Path | None = None,
    n_tokens: int = N_TOKENS,
) -> tuple[Quality, list[str]]:
    """A model's predictions of a text in a codec, and which modules were kept by a skip list.

    codec: None is the model as it stands. text: by default the lab's data/texts/evaluation.txt.
    SettingError for entries of the skip list that fit no module.
    """
    checkpoint = Checkpoint(name)
    check_room(2 * checkpoint.n_bytes, f"Evaluating {checkpoint.title}")
    path = Path(text or paths.data_dir() / "texts" / "evaluation.txt")
    blocks = read_blocks(checkpoint, path, n_tokens)
    chosen = None if codec is None else find_codec(codec)
    model = checkpoint.load()
    resolved = resolve(skip, list_linears(model))
    if resolved.dead:
        raise SettingError(f"{resolved.dead[0]!r} in the skip list fits no linear module")
    reference = Reference(model, blocks)
    if chosen is None:
        return reference.itself(), [each.name for each in list_linears(model)]
    with Decoded(model, chosen, HEAD not in resolved.kept).swapped(keep=resolved.kept):
        return reference.compare(), list(resolved.kept)
