"""The lab's panels, from one door. Each shows plain functions that work without it."""

from __future__ import annotations

from .grade_panel import GradePanel
from .job_panel import JobPanel
from .loss_panel import LossPanel
from .microscope import Microscope
from .order_editor import OrderEditor
from .page import RunProgress
from .side_by_side import SideBySide
from .think_panel import ThinkPanel

__all__ = [
    "GradePanel",
    "JobPanel",
    "LossPanel",
    "Microscope",
    "OrderEditor",
    "RunProgress",
    "SideBySide",
    "ThinkPanel",
]
