"""The exercises of 06_ruling_out_suspects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ...stats import Paired
from ..exercise import exercise, expect

if TYPE_CHECKING:
    from ...models import LlamaTokenizer, TransformersTokenizer

TEXTS = {"a": "na\u00efve", "b": "nai\u0308ve", "c": "Price: 1,000,000", "d": "<s>old</s>"}


@exercise(
    "predict",
    solution='differs = {"b", "d"}',
    after="""
        The second holds i and a mark on it, which NFC joins; the last holds what looks like an end.
        `experiments.compare_tokenizers(ours, theirs, [...])` shows it.
    """,
    wrong=[
        ('differs = {"b"}', "d: llama.cpp"),
        ('differs = {"a", "b"}', "a: its i with two dots is one character already"),
        ('differs = {"b", "c", "d"}', "c: digits and commas"),
        ('differs = {"d"}', "b: NFC"),
        ("differs = {}", "a set of letters"),
    ],
)
def other_tokens(differs: set[str], ours: LlamaTokenizer, theirs: TransformersTokenizer) -> None:
    r"""
    Which of these get other tokens in llama.cpp than in transformers: (a) `"na\u00efve"`, with ï
    as one character, (b) `"nai\u0308ve"`, with i and two dots after it, (c)
    `"Price: 1,000,000"`, (d) `"<s>old</s>"`? Answer with a set of letters, such as `{"a", "c"}`,
    before you call `compare_tokenizers`.
    """
    from ...experiments import compare_tokenizers

    expect(isinstance(differs, set), 'answer with a set of letters, such as {"a", "c"}')
    parts = compare_tokenizers(ours, theirs, list(TEXTS.values())).differences
    right = {list(TEXTS)[difference.place] for difference in parts}
    reasons = {
        "a": "its i with two dots is one character already, and NFC leaves it alone",
        "b": "NFC joins the i and the mark on it, and llama.cpp does not apply NFC",
        "c": "digits and commas are cut by the same rule in both",
        "d": "llama.cpp takes </s> for an end in any vocabulary",
    }
    for letter, reason in reasons.items():
        expect((letter in differs) == (letter in right), f"look again at {letter}: {reason}")


@exercise(
    "change",
    solution="""
        verdicts = {n: stats.Paired("loops", n, 0, 0, 0, 0).verdict for n in range(1, 99)}
        n_runs = min(n for n, verdict in verdicts.items() if verdict == "acquitted")
    """,
    after="""
        The interval is widest where nothing happened yet: its half is 1.96 / (n + 2), which is
        within 20 points from 8 runs on. With a single pair that differs it takes more.
    """,
    wrong=[
        ("n_runs = 10", "9 would do"),
        ("n_runs = 5", "5 runs leave it undecided"),
        ("n_runs = 0", "at least one run"),
    ],
)
def fewest_that_acquit(n_runs: int) -> None:
    """
    Ten runs with and without an override, none lost and none gained:
    `stats.Paired("loops", 10, 0, 0, 0, 0).verdict` is "acquitted". Change the number of runs: which
    are the fewest that acquit when nothing differs?
    """
    expect(n_runs >= 1, "at least one run is needed to say anything")
    same, fewer = (Paired("loops", n, 0, 0, 0, 0).verdict for n in (n_runs, n_runs - 1))
    hint = f"{n_runs} runs leave it {same}: no difference in few runs is no proof of none"
    expect(same == "acquitted", hint)
    expect(fewer != "acquitted", f"{n_runs - 1} would do")


@exercise(
    "build",
    solution="""
        def make_labels(ids, pad):
            return [-100 if token == pad else token for token in ids]
    """,
    after="""
        Four lines of a library, and the whole bug: padding is recognised by its id, so a token of
        that id is lost wherever it stands. The cells above counted what it does.
    """,
    wrong=[
        ("make_labels = lambda ids, pad: list(ids)", "padding would be learnt"),
        (
            "make_labels = lambda ids, pad: [t for t in ids if t != pad]",
            "a label for each token",
        ),
        (
            """
            def make_labels(ids, pad):
                n = len(ids)
                while n and ids[n - 1] == pad:
                    n -= 1
                return [*ids[:n], *[-100] * (len(ids) - n)]
            """,
            "that is how it should be done",
        ),
        (
            "make_labels = lambda ids, pad: [-100 if t != pad else t for t in ids]",
            "the other way round",
        ),
    ],
)
def labels_by_id(
    make_labels: Callable[[Sequence[int], int], Sequence[int]], theirs: TransformersTokenizer
) -> None:
    """
    Build what transformers' collator does, the bug included: `make_labels(ids, pad)` gives a list
    of labels, one for each token id of a row; the token itself where it is to be learnt, -100 where
    the collator takes it for padding. It is held against the real one.
    """
    from ...tuning import find_token, make_collator

    tokenizer = theirs.tokenizer
    for text in ("<|im_end|>", "<|vision_pad|>"):
        pad = find_token(tokenizer, text)
        rows = [tokenizer(turn)["input_ids"] for turn in ("Hi.<|im_end|>", "Hi<|im_end|>there.")]
        whole = [{"input_ids": ids, "labels": ids} for ids in rows]
        batch = make_collator("transformers", tokenizer, pad)(whole)
        for ids, wanted in zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
            mine = list(make_labels(ids, pad))
            expect(len(mine) == len(ids), "there has to be a label for each token of the row")
            hint = "it is the other way round: -100 stands where a label is *not* learnt"
            expect(mine != [token if token == pad else -100 for token in ids], hint)
            expect(ids[-1] != pad or mine[-1] == -100, "padding would be learnt")
            hint = "that is how it should be done; the collator does not look where padding is"
            expect(mine == wanted, hint)
