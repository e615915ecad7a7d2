"""Run untrusted programs in a sandbox: games, chat templates, whatever a model wrote."""

from typing import TYPE_CHECKING

from ..rooms import open_room

if TYPE_CHECKING:
    from .process import Limits as Limits  # what a program may use up
    from .sandbox import Isolation as Isolation  # how well it was confined, in words
    from .sandbox import Outcome as Outcome  # how it ended, and what it left
    from .sandbox import probe as probe  # how well this machine can confine one
    from .sandbox import run_python as run_python  # run a program in the sandbox
else:
    __getattr__, __dir__ = open_room(__name__, __file__)
