"""A run done again by llama.cpp's own program: the proof that a printed command reproduces it."""

from __future__ import annotations

from typing import Protocol

from ..errors import ToolchainError
from ..llamacpp.loading import Loading
from ..llamacpp.tools import run_tool
from .command import Command
from .run import Request

ATTEMPTS = 3
# llama-completion's last word on stderr, after the whole text went to stdout.
_LAST_WORD = "graphs reused"
_END = " [end of text]\n"


class Loaded(Protocol):
    """A model and how it is loaded: an engine, or what a sweep knows of one."""

    @property
    def path(self) -> str:
        """The model's file."""

    @property
    def loading(self) -> Loading:
        """How it is loaded."""


def command_of(request: Request, engine: Loaded) -> Command:
    """The llama-completion command that reproduces a request, alone and from nothing.

    It does so token for token where `engine.width_independent`, whatever else was in the
    batch; elsewhere a run from a batch and the command may part.
    """
    return Command(
        request.sampling,
        engine.loading,
        engine.path,
        request.prompt,
        request.seed,
        request.n_predict,
    )


def complete(command: Command) -> str:
    """The text that llama-completion writes for a command, without what it adds at the end.

    Its printing thread is not waited for when it exits (llama.cpp #22142), so a text may lack its
    tail: then it is run again. Raises `ToolchainError` where that does not help.
    """
    for _ in range(ATTEMPTS):
        done = run_tool("llama-completion", command.argv())
        if _LAST_WORD in done.stderr:
            return done.stdout.removesuffix("\n\n").removesuffix(_END)
    raise ToolchainError("llama-completion lost the end of its text three times; run it again")
