"""A template tried on a model: its prompt, the tokens, and a run with its thinking apart."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from .. import chat
from ..engine import Engine
from ..records import Run
from ..rendering import Conversation, render
from ..sampling import Sampling
from ..thinking import Thinking, is_forced, split_thinking

EVERY = 0.05  # seconds between two splits of a text that grows


@dataclass(frozen=True)
class Preview:
    """What a template makes of a conversation, as the model will read it."""

    prompt: str
    tokens: tuple[int, ...]
    forced: bool
    description: str


def preview(engine: Engine, template: str, conversation: Conversation) -> Preview:
    """The prompt, its tokens, whether it forces the thinking, and which template it is.

    ChatError where the template does not render.
    """
    prompt = render(template, conversation, variables=name_specials(engine))
    tokens = tuple(engine.model.tokenize(prompt))
    return Preview(prompt, tokens, is_forced(prompt), chat.describe(template))


def name_specials(engine: Engine) -> dict[str, str]:
    """The model's bos_token and eos_token, which many templates ask for; without what it lacks."""
    ids = {"bos_token": engine.info.tokenizer.bos, "eos_token": engine.info.tokenizer.eos}
    return {
        name: engine.model.show(token)
        for name, token in ids.items()
        if token is not None and token < engine.model.n_vocab
    }


def think_aloud(
    engine: Engine,
    prompt: str,
    sampling: Sampling,
    seed: int = 3407,
    n_predict: int = 200,
    on_split: Callable[[Thinking], None] = lambda split: None,
) -> tuple[Run, Thinking]:
    """One run and its split; on_split gets the split so far, at most 20 times a second."""
    forced, written, due = is_forced(prompt), "", 0.0

    def show(_index: int, _token: int, text: str) -> None:
        nonlocal written, due
        written += text
        if time.monotonic() >= due:
            on_split(split_thinking(written, forced))
            due = time.monotonic() + EVERY

    run = engine.generate(prompt, sampling, seed, n_predict, show)
    return run, split_thinking(run.text, forced)
