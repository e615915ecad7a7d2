"""The course around the notebooks: exercises, costs, progress, reset, doctor, offline folder."""

from typing import TYPE_CHECKING

from ..rooms import open_room

if TYPE_CHECKING:
    from .doctor import report as report  # the doctor's checks as lines for a person
    from .exercise import RIGHT as RIGHT  # what a right answer is told
    from .exercise import UNANSWERED as UNANSWERED  # what an untouched stub is told
    from .exercise import Exercise as Exercise  # a question, a solution and a check
    from .exercise import list_exercises as list_exercises  # those of one notebook
    from .notebooks import Notebook as Notebook  # its file, its title and what it costs
    from .notebooks import draw_progress as draw_progress  # how far the reader is, as a table
    from .notebooks import draw_table as draw_table  # what each notebook costs, as a table
    from .notebooks import read_course as read_course  # the notebooks in their order
else:
    __getattr__, __dir__ = open_room(__name__, __file__)
