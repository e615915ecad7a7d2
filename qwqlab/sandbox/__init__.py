"""Run what nobody has read, shut in: games, chat templates, what a model wrote."""

from typing import TYPE_CHECKING

from ..rooms import open_room

if TYPE_CHECKING:
    from .isolation import Isolation as Isolation  # how far a program was shut in, in words
    from .isolation import Limits as Limits  # what a program may use up
    from .sandbox import Outcome as Outcome  # how a program ended, and what it left
    from .sandbox import probe as probe  # what this machine's sandbox holds
    from .sandbox import run_python as run_python  # run files in a box of their own
else:
    __getattr__, __dir__ = open_room(__name__, __file__)
