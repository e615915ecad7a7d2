"""The exercises of 02_models_and_quants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ...models import RungResult, estimate_memory, lookup
from ..exercise import exercise, expect

_Q4 = lookup("QwQ-32B:Q4_K_M")


@exercise(
    "predict",
    solution="tokens = 10**9 // (64 * 8 * 128 * 2 * 2)",
    after="""
        64 layers, 8 KV heads of 128 numbers, a key and a value, 2 bytes each. That is 3,814: the
        article's 16,384 tokens of context take 4.3 GB.
    """,
    wrong=[
        ("tokens = 10**9 // 131_072", "a key and a value"),
        ("tokens = 10**9 // (64 * 40 * 128 * 2 * 2)", "40 query heads share 8"),
        ("tokens = 10**9 // (8 * 128 * 2 * 2)", "each of the 64 layers"),
        ("tokens = 2**30 // (64 * 8 * 128 * 2 * 2)", "2^30 bytes are a GiB"),
    ],
)
def tokens_in_a_gigabyte(tokens: int) -> None:
    """
    One token of context takes a key and a value of `n_kv_heads` x `head_dim` numbers in each
    layer, 2 bytes a number. QwQ-32B has 64 layers, 40 heads for queries, 8 for keys and values,
    and 128 numbers a head. How many tokens of its KV cache go into 1 GB (10^9 bytes)? Round down,
    and answer before the next cell computes what a context takes.
    """
    each = _Q4.architecture.kv_bytes_per_token
    expect(tokens != 2**30 // each, "2^30 bytes are a GiB; a GB has 10^9")
    expect(tokens != 10**9 // (each // 2), "there is a key and a value, and both are kept")
    expect(tokens != 10**9 // (each * 5), "40 query heads share 8 for keys and values, and only "
           "these are kept")  # fmt: skip
    expect(tokens != 10**9 // (each // 64), "each of the 64 layers has a cache of its own")
    expect(tokens == 10**9 // each, f"that would be {10**9 / tokens:,.0f} bytes a token")


@exercise(
    "change",
    solution="""
        entry = models.lookup("QwQ-32B:Q4_K_M")
        n_ctx = 0
        while models.estimate_memory(entry, n_ctx + 1024).total <= 24 * 2**30:
            n_ctx += 1024
    """,
    after="""
        That is 20,480 tokens: more than the article's 16,384, less than the 32,768 of the model.
    """,
    wrong=[
        ("n_ctx = 16_384", "does not fill the card"),
        ("n_ctx = 21_504", "takes more than the card holds"),
        ("n_ctx = 1000", "a multiple of 1,024"),
    ],
)
def largest_context(n_ctx: int) -> None:
    """
    `models.estimate_memory(models.lookup("QwQ-32B:Q4_K_M"), 16_384).total` is the sum for the
    article's context. Change the context: which is the largest, in multiples of 1,024 tokens, that
    fits a card of 24 GiB (2^30 bytes each)?
    """
    expect(n_ctx % 1024 == 0, f"{n_ctx} is not a multiple of 1,024")
    card = 24 * 2**30
    total, more = (estimate_memory(_Q4, n).total for n in (n_ctx, n_ctx + 1024))
    hint = f"{n_ctx:,} tokens need {total / 2**30:.2f} GiB, which takes more than the card holds"
    expect(total <= card, hint)
    hint = f"{n_ctx:,} tokens need {total / 2**30:.2f} GiB: a context that does not fill the card"
    expect(more > card, hint)


@exercise(
    "build",
    solution="""
        def find_dominated(rungs):
            return {
                rung.name
                for rung in rungs
                if any(r.bytes < rung.bytes and r.perplexity < rung.perplexity for r in rungs)
            }
    """,
    after="""
        Nearly everything above Q4_1 is: nothing made from a Q4_1 file can pay for its extra bytes.
    """,
    wrong=[
        ("find_dominated = lambda rungs: set()", "is dominated by"),
        (
            "find_dominated = lambda rungs: {r.name for r in rungs if r.bytes > rungs[0].bytes}",
            "no smaller file is better",
        ),
        (
            """
            def find_dominated(rungs):
                best = min(rungs, key=lambda rung: rung.perplexity)
                return {rung.name for rung in rungs if rung.bytes > best.bytes}
            """,
            "is dominated by",
        ),
    ],
)
def dominated(
    find_dominated: Callable[[Sequence[RungResult]], set[str]], rungs: Sequence[RungResult]
) -> None:
    """
    A rung is *dominated* when some other rung's file is smaller and its perplexity lower too:
    nothing speaks for it. Build `find_dominated(rungs)`, which gives the set of their names. A
    rung has `name`, `bytes` and `perplexity`.
    """
    made_up = [
        replace(rungs[0], name=name, bytes=n_bytes, perplexity=perplexity)
        for name, n_bytes, perplexity in (("a", 1, 30.0), ("b", 2, 40.0), ("c", 3, 20.0))
    ]
    for some in (rungs, made_up):
        named = find_dominated(some)
        for rung in some:
            better = [
                r.name for r in some if r.bytes < rung.bytes and r.perplexity < rung.perplexity
            ]
            if better and rung.name not in named:
                expect(
                    False, f"{rung.name} is dominated by {better[0]}: smaller, and less surprised"
                )
            expect(
                bool(better) or rung.name not in named, f"for {rung.name} no smaller file is better"
            )
