"""Play Flappy Bird and judge it: the article's own test of a model's answer."""

from typing import TYPE_CHECKING

from ..rooms import open_room

if TYPE_CHECKING:
    from .answer import extract_program as extract_program  # the program in a model's answer
    from .four_commands import choose_length as choose_length  # how many tokens each may write
    from .four_commands import list_arms as list_arms  # the article's four commands
    from .four_commands import read_prompt as read_prompt  # its prompt
    from .four_commands import run_arms as run_arms  # run the four, each to a file
    from .four_commands import show_differences as show_differences  # where two settings differ
    from .grading import STAGES as STAGES  # what a program must get through before it is judged
    from .grading import Grade as Grade  # stages, requirements, verdict
    from .grading import grade_file as grade_file  # grade a transcript or a program in a file
    from .grading import grade_text as grade_text  # grade the text itself
else:
    __getattr__, __dir__ = open_room(__name__, __file__)
