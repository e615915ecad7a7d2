"""Every figure of the lab, from one door. Each is a `Drawing`: it brings its words and numbers.

A run's text is drawn by `show_run`, a step of a run by `draw_stages`, the experiment by
`draw_trade_off`, and quants by `draw_ladder`; what few bits lose by `draw_errors`, `draw_heat` and
`draw_types`, what that costs by `draw_quality` and `draw_proxies`; training by `draw_losses`.
`show_rows` is a table of words.
"""

from __future__ import annotations

from .drawing import Drawing, show_rows
from .grade_view import GradeView, show_grade
from .ladder_chart import Rung, draw_ladder
from .loss_chart import draw_losses
from .quality_chart import draw_proxies, draw_quality
from .quant_chart import draw_errors, draw_heat, draw_types
from .run_text import RunText, show_run
from .stages import draw_stages
from .suspects_chart import draw_suspects
from .trade_off import Arm, draw_trade_off

__all__ = [
    "Arm",
    "Drawing",
    "GradeView",
    "RunText",
    "Rung",
    "draw_errors",
    "draw_heat",
    "draw_ladder",
    "draw_losses",
    "draw_proxies",
    "draw_quality",
    "draw_stages",
    "draw_suspects",
    "draw_trade_off",
    "draw_types",
    "show_grade",
    "show_rows",
    "show_run",
]
