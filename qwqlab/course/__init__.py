"""The course around the notebooks: exercises, costs, progress, reset, doctor, offline folder."""

from typing import TYPE_CHECKING

from ..rooms import open_room

if TYPE_CHECKING:
    from .doctor import checks_to_dict as checks_to_dict  # the doctor's checks as JSON
    from .doctor import report_checks as report_checks  # the doctor's checks as lines
    from .doctor import run_checks as run_checks  # is all here that the lab needs?
    from .exercise import RIGHT as RIGHT  # what a right answer is told
    from .exercise import UNANSWERED as UNANSWERED  # what an untouched stub is told
    from .exercise import Exercise as Exercise  # a question, a solution and a check
    from .exercise import list_exercises as list_exercises  # those of one notebook
    from .exercises import beyond_one_machine as beyond_one_machine  # the checks of 09
    from .exercises import build_llama_cpp as build_llama_cpp  # the checks of 01
    from .exercises import dynamic_4bit as dynamic_4bit  # the checks of 07
    from .exercises import flappy_bird as flappy_bird  # the checks of 04
    from .exercises import models_and_quants as models_and_quants  # the checks of 02
    from .exercises import qlora as qlora  # the checks of 08
    from .exercises import ruling_out_suspects as ruling_out_suspects  # the checks of 06
    from .exercises import sampler_lab as sampler_lab  # the checks of 03
    from .exercises import start_here as start_here  # the checks of 00
    from .exercises import think_token as think_token  # the checks of 05
    from .notebooks import Notebook as Notebook  # its file, its title and what it costs
    from .notebooks import draw_progress as draw_progress  # how far the reader is, as a table
    from .notebooks import draw_table as draw_table  # what each notebook costs, as a table
    from .notebooks import read_course as read_course  # the notebooks in their order
    from .offline import build_folder as build_folder  # for machines without a network
    from .reset import forget_progress as forget_progress  # for the next reader
    from .reset import reset_notebooks as reset_notebooks  # as they came; what was written is kept
else:
    __getattr__, __dir__ = open_room(__name__, __file__)
