"""The exercises of 08_qlora."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..exercise import exercise, expect

if TYPE_CHECKING:
    from ...quant import Checkpoint
    from ...tuning import Example, Recipe


@exercise(
    "predict",
    solution="n_learnt = 12 + 1",
    after="With transformers' collator it would be 12: the end of the turn has the pad's id.",
    wrong=[
        ("n_learnt = 12", "the end of the turn"),
        ("n_learnt = 83", "a prompt is read"),
        ("n_learnt = 18", "padding is found by its place"),
    ],
)
def labels_of_a_row(n_learnt: int) -> None:
    """
    A prompt has 70 tokens, its answer 12, an end of the turn follows, and the batch fills the row
    up by 5. How many labels of it are learnt with TRL's collator, the pad token being the end of a
    turn? Predict it before the next cells count.
    """
    expect(n_learnt != 12, "the end of the turn is learnt as well: that is what teaches to stop")
    expect(n_learnt < 70, "a prompt is read, not learnt")
    expect(n_learnt == 13, "the answer and one end of a turn; padding is found by its place")


@exercise(
    "change",
    solution='mine = "<repo_name>"',
    after="""
        Any token will do that no answer holds. `<|endoftext|>` does here, and would not where a
        text quotes it; the one to choose is one that nothing holds, as `<|vision_pad|>` in QwQ's
        vocabulary.
    """,
    wrong=[
        ('mine = "<|im_end|>"', "it ends every answer"),
        ('mine = "2"', "labels are lost: answers hold that token"),
        ('mine = "no such token"', "is not one token"),
    ],
)
def harmless_pad(mine: str, tokenizer: Any, train: Sequence[Example], small: Recipe) -> None:
    """
    Change the pad token: choose one for the embedded model with which transformers' collator, too,
    loses no label of the training set. `tokenizer.all_special_tokens` lists candidates.
    """
    from ...tuning import encode, find_token, make_collator

    end, pad = find_token(tokenizer, "<|im_end|>"), find_token(tokenizer, mine)
    expect(pad != end, "it ends every answer, and none of these ends would be learnt")
    rows = [encode(example, tokenizer, end, small.max_tokens) for example in train]
    wanted = sum(target >= 0 for row in rows for target in row["labels"])
    found = int((make_collator("transformers", tokenizer, pad)(rows)["labels"] >= 0).sum())
    expect(found == wanted, f"{wanted - found} labels are lost: answers hold that token")


@exercise(
    "build",
    solution="""
        def count_numbers(rank):
            linears = quant.list_linears(checkpoint.skeleton())
            return sum(rank * (m.n_in + m.n_out) for m in linears if m.name != "lm_head")
    """,
    after="""
        9,768,960 numbers at rank 32: 7 % of the model's 134.5 million, and each has a gradient and
        two states of the optimiser.
    """,
    wrong=[
        ("count_numbers = lambda rank: 355_008 * rank", "the head, lm_head"),
        ("count_numbers = lambda rank: 149_760 * rank", "two matrices, A and B"),
        ("count_numbers = lambda rank: 9_768_960", "a quarter of the rank"),
        ("count_numbers = lambda rank: rank", "it gives 32 for rank 32"),
    ],
)
def size_of_the_adapters(count_numbers: Callable[[int], int], checkpoint: Checkpoint) -> None:
    """
    Build the count: a function from a rank to how many numbers the adapters of this model hold.
    `quant.list_linears(checkpoint.skeleton())` gives its linear modules, each with `n_in` and
    `n_out`; the head has no adapter.
    """
    from ...quant import list_linears

    linears = list_linears(checkpoint.skeleton())
    body = [m for m in linears if m.name != "lm_head"]
    found = count_numbers(32)
    with_head = sum(32 * (m.n_in + m.n_out) for m in linears)
    expect(found != with_head, "the head, lm_head, has no adapter")
    ones = [sum(32 * m.n_in for m in body), sum(32 * m.n_out for m in body)]
    expect(found not in ones, "each module has two matrices, A and B")
    expect(found == sum(ones), f"it gives {found:,} for rank 32")
    expect(count_numbers(8) == found / 4, "a quarter of the rank has a quarter of the numbers")
