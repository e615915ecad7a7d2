"""Which tokens a model is trained to write: the labels of a batch, under a pad and a collator.

A label is the token itself, or -100, which the loss skips. TRL's collator knows where it put
padding. That of transformers looks for the pad token's id, and takes every token of that id out of
the loss, the end of an answer included where that is the pad token.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import SettingError
from ..quant import import_bitsandbytes
from .examples import Example, Turn

IGNORED = -100
COLLATORS = ("trl", "transformers")
TURNS = ("short<|im_end|>", "a longer one<|endoftext|><|im_end|>")
"""Two answers for a table of labels: two ends of a turn, and one real <|endoftext|>."""

Row = dict[str, list[int]]
Collator = Callable[[list[Row]], Any]


def encode(example: Example | Turn, tokenizer: Any, end: int, max_tokens: int) -> Row:
    """Return an example as token ids and labels: only the answer and its end are learnt.

    Special tokens are read in the prompt of a `Turn` alone, where a template wrote them.
    """

    def read(text: str, special: bool) -> list[int]:
        options = {"add_special_tokens": False, "split_special_tokens": not special}
        return list(tokenizer(text, **options)["input_ids"])

    prompt = read(example.prompt, isinstance(example, Turn))
    answer = [*read(example.output, False), end]
    ids = [*prompt, *answer][:max_tokens]
    return {"input_ids": ids, "labels": ([IGNORED] * len(prompt) + answer)[:max_tokens]}


def find_token(tokenizer: Any, text: str) -> int:
    """Return the id of a special token by its text; raise SettingError unless it is one token."""
    ids = _tokenize(tokenizer, text)
    if len(ids) != 1:
        raise SettingError(f"{text!r} is not one token of this model; name one, as <|im_end|>")
    return ids[0]


def _tokenize(tokenizer: Any, text: str) -> list[int]:
    if any("\ud800" <= letter < "\ue000" for letter in text):
        raise SettingError(f"{text!r} is not text in UTF-8; give one that is")
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def make_collator(name: str, tokenizer: Any, pad: int) -> Collator:
    """Return a collator of rows with input_ids and labels, as that library makes labels."""
    if name not in COLLATORS:
        raise SettingError(f"collator={name!r} is not one of {', '.join(COLLATORS)}")
    import_bitsandbytes()  # both import it, and it would advise to install more
    if name == "trl":
        from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

        return DataCollatorForLanguageModeling(pad_token_id=pad)
    import transformers

    own = copy.deepcopy(tokenizer)
    own.pad_token_id = pad
    own.padding_side = "right"
    # It makes labels of all tokens but those of the pad token's id, so prompts are taken out.
    label_all = transformers.DataCollatorForLanguageModeling(own, mlm=False)

    def collate(rows: list[Row]) -> Any:
        batch = label_all([{"input_ids": row["input_ids"]} for row in rows])
        for labels, row in zip(batch["labels"], rows, strict=True):
            for place, label in enumerate(row["labels"]):
                if label == IGNORED:
                    labels[place] = IGNORED
        return batch

    return collate


@dataclass(frozen=True)
class Labelled:
    """One token of a batch: its text, whether it only fills up, and whether it is learnt."""

    token: int
    text: str
    is_padding: bool
    is_learnt: bool


@dataclass(frozen=True)
class LabelTable:
    """The labels of a batch under one pad token and one collator, a tuple for each row."""

    pad: str
    collator: str
    rows: tuple[tuple[Labelled, ...], ...]

    def count(self, text: str) -> int:
        """Return how many tokens of that text are learnt."""
        return sum(each.is_learnt and each.text == text for row in self.rows for each in row)


def label(tokenizer: Any, pad: str, collator: str, texts: Sequence[str] = TURNS) -> LabelTable:
    """Return the labels that a collator gives these texts, all of each meant to be learnt.

    tokenizer: of transformers. pad: a token by its text.
    """
    pad_id = find_token(tokenizer, pad)
    ids = [_tokenize(tokenizer, text) for text in texts]
    rows: list[Row] = [{"input_ids": list(each), "labels": list(each)} for each in ids]
    batch = make_collator(collator, tokenizer, pad_id)(rows)
    decode = functools.partial(tokenizer.decode, clean_up_tokenization_spaces=False)
    return LabelTable(
        pad,
        collator,
        tuple(
            tuple(
                Labelled(int(token), decode([token]), place >= len(row), label != IGNORED)
                for place, (token, label) in enumerate(zip(tokens, labels, strict=True))
            )
            for tokens, labels, row in zip(
                batch["input_ids"].tolist(), batch["labels"].tolist(), ids, strict=True
            )
        ),
    )
