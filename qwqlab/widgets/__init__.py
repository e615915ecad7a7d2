"""The lab's panels. Each shows plain functions that work without it."""

from typing import TYPE_CHECKING

from ..rooms import open_room

if TYPE_CHECKING:
    from .grade_panel import GradePanel as GradePanel  # judges a program
    from .job_panel import JobPanel as JobPanel  # a long job: its bar and Stop
    from .live_figure import LiveFigure as LiveFigure  # a figure that changes in place
    from .loss_panel import LossPanel as LossPanel  # a training run: its loss as it falls
    from .microscope import Microscope as Microscope  # any step of a run, stage by stage
    from .order_editor import OrderEditor as OrderEditor  # the samplers as a list
    from .page import RunProgress as RunProgress  # a bar that follows a sweep
    from .side_by_side import SideBySide as SideBySide  # two settings beside each other
    from .think_panel import ThinkPanel as ThinkPanel  # a chat template to edit
    from .think_run import preview as preview  # the prompt that a template makes
    from .think_run import think_aloud as think_aloud  # a run and its thinking
else:
    __getattr__, __dir__ = open_room(__name__, __file__)
