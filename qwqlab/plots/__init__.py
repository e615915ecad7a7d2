"""Every figure of the lab. Each is a `Drawing`: it brings its words and its numbers along.

`show_run` draws a run's text, `draw_stages` one step of a run, `draw_trade_off` the experiment;
`draw_ladder` a ladder of quants, `draw_errors`, `draw_heat` and `draw_types` what few bits lose,
`draw_quality` and `draw_proxies` what that costs; `draw_losses` a training run. `show_rows` makes a
table of words.
"""

from typing import TYPE_CHECKING

from ..rooms import open_room

if TYPE_CHECKING:
    from .drawing import SCROLLS as SCROLLS  # attributes of a box that scrolls, for its HTML
    from .drawing import VERMILLION as VERMILLION  # the colour of a warning
    from .drawing import WIDTH as WIDTH  # pixels that a figure is laid out for
    from .drawing import Drawing as Drawing  # a figure with its sentence and its table
    from .drawing import mark_names as mark_names  # a sentence for a page, names as code
    from .drawing import name_token as name_token  # a token as a label
    from .drawing import show_rows as show_rows  # rows of words as a table
    from .drawing import style as style  # the lab's look
    from .drawing import words_html as words_html  # a figure's sentence and folded table
    from .grade_view import GradeView as GradeView  # a grade as HTML and as text
    from .grade_view import show_grade as show_grade  # a grade for a notebook
    from .ladder_chart import draw_ladder as draw_ladder  # size against perplexity and speed
    from .loss_chart import draw_losses as draw_losses  # the losses of training runs
    from .quality_chart import draw_proxies as draw_proxies  # which number foretells the harm
    from .quality_chart import draw_quality as draw_quality  # divergence against extra bytes
    from .quant_chart import draw_errors as draw_errors  # errors of modules by layer
    from .quant_chart import draw_heat as draw_heat  # output errors as a heat map
    from .quant_chart import draw_types as draw_types  # weight error against bits
    from .report import make_table as make_table  # a row for each arm
    from .report import pick_samples as pick_samples  # one run of each arm
    from .report import show_sample as show_sample  # such a run, marked
    from .report import write_report as write_report  # the experiment as one HTML file
    from .run_text import RunText as RunText  # a marked text as HTML and as text
    from .run_text import show_run as show_run  # a run's text, its escapes marked
    from .stages import draw_stages as draw_stages  # one step, stage by stage
    from .suspects_chart import draw_suspects as draw_suspects  # what each override changes
    from .trade_off import draw_trade_off as draw_trade_off  # loops against valid code
else:
    __getattr__, __dir__ = open_room(__name__, __file__)
