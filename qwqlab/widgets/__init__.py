"""The lab's panels. Each shows the results of plain functions, which work without it."""

from typing import TYPE_CHECKING

from ..rooms import open_room

if TYPE_CHECKING:
    from .grade import GradePanel as GradePanel  # judges a program
    from .jobs import JobPanel as JobPanel  # a long job: its bar and Stop
    from .jobs import LossPanel as LossPanel  # a training run: its loss as it falls
    from .jobs import RunProgress as RunProgress  # a bar that follows a sweep
    from .microscope import Microscope as Microscope  # any step of a run, stage by stage
    from .side_by_side import SideBySide as SideBySide  # two settings beside each other
    from .think import ThinkPanel as ThinkPanel  # a chat template to edit
else:
    __getattr__, __dir__ = open_room(__name__, __file__)
