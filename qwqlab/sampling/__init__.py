"""One run: its settings, the order of its samplers, and the engine that runs it."""

from typing import TYPE_CHECKING

from ..rooms import open_room

if TYPE_CHECKING:
    from .command import Command as Command  # a llama.cpp command line, read or to be written
    from .command import command_of as command_of  # the command that reproduces a request
    from .command import complete as complete  # the text that llama-completion writes for it
    from .command import name_flags as name_flags  # a sentence with flags for settings
    from .command import parse_command as parse_command  # read a command line
    from .command import split_flags as split_flags  # llama.cpp's flags among other words
    from .engine import Engine as Engine  # runs many sequences in one batch
    from .fences import Block as Block  # a fenced block of a text
    from .fences import find_blocks as find_blocks  # the fenced blocks of a text
    from .presets import ARTICLE_ORDER as ARTICLE_ORDER  # the article's list of samplers
    from .presets import (
        ARTICLE_ORDER_WITH_PENALTIES as ARTICLE_ORDER_WITH_PENALTIES,  # and with penalties in it
    )
    from .presets import CHANGES as CHANGES  # what llama.cpp does otherwise than in March 2025
    from .presets import MARCH_2025 as MARCH_2025  # what a flag that is not given meant then
    from .presets import PRESETS as PRESETS  # the article's settings, Qwen's and llama.cpp's
    from .presets import preset as preset  # one of PRESETS
    from .probe import MOVED as MOVED  # the least change of a logit that counts
    from .probe import Detour as Detour  # where another Sampling would have left a run
    from .probe import Probe as Probe  # a run's steps, stage by stage
    from .probe import StageView as StageView  # the candidates that a stage left
    from .probe import StepView as StepView  # a step, stage by stage
    from .run import Request as Request  # what is asked of a model
    from .run import Run as Run  # what came out
    from .sampling import Sampling as Sampling  # the numbers and the order of one run
    from .sampling import find_inert as find_inert  # settings without effect, and why
    from .sampling import is_neutral as is_neutral  # whether a setting does nothing
    from .settings import BY_NAME as BY_NAME  # every number of the chain, by its name
    from .settings import DEFAULT_ORDER as DEFAULT_ORDER  # llama.cpp's own order
    from .settings import SETTINGS as SETTINGS  # every number of the chain
    from .settings import check_order as check_order  # names of samplers as llama.cpp's own
    from .settings import read_own_settings as read_own_settings  # what a GGUF itself brings
    from .thinking import CLOSE as CLOSE  # the tag that ends the thinking
    from .thinking import Thinking as Thinking  # a text split in two
    from .thinking import ThinkingStream as ThinkingStream  # the same, piece by piece
    from .thinking import count_tags as count_tags  # how often a model writes the tags itself
    from .thinking import is_forced as is_forced  # whether a prompt opens the thinking
    from .thinking import split_thinking as split_thinking  # thinking and answer
    from .transcripts import Answer as Answer  # the answer in a saved transcript
    from .transcripts import find_answer as find_answer  # behind echo and thinking
else:
    __getattr__, __dir__ = open_room(__name__, __file__)
