"""A text as blocks of tokens, cut as llama-perplexity cuts it."""

from __future__ import annotations

from pathlib import Path

import torch

from .. import files
from ..errors import SettingError
from .checkpoint import Checkpoint

N_CTX = 512
MOST_BYTES = 100_000_000


def read_blocks(
    checkpoint: Checkpoint, path: Path, n_tokens: int, n_ctx: int = N_CTX
) -> torch.Tensor:
    """The first tokens of a text, n_blocks x n_ctx, or one shorter block.

    Each block begins with BOS where the model's file says so.
    """
    if n_tokens < 2:
        raise SettingError(f"n_tokens={n_tokens} is out of range; give 2 or more")
    try:
        text = files.read_bytes(path, MOST_BYTES).decode("utf-8")
    except (OSError, UnicodeError) as error:
        raise SettingError(f"{path} cannot be read as text in UTF-8: {error}") from error
    ids = checkpoint.tokenize(text)[:n_tokens]
    if len(ids) < 2:
        raise SettingError(f"{path} has {len(ids)} tokens; give a text of at least {n_ctx}")
    width = min(n_ctx, len(ids))
    blocks = torch.tensor(ids[: len(ids) // width * width]).view(-1, width)
    if checkpoint.first_token is not None:
        blocks[:, 0] = checkpoint.first_token
    return blocks
