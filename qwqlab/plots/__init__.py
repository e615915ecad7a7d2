"""The lab's figures. Each is a `Drawing`, with a sentence and a table of its numbers.

`draw_stages` draws one step of a run, `draw_arms` the experiment, `draw_suspects` the article's
suspects; `draw_ladder` the files of a model; `draw_errors`,
`draw_heat` and `draw_types` what few bits lose, `draw_quality` and `draw_proxies` what that costs;
`draw_losses` training runs. `show_run` marks a run's text, `show_rows` makes a table of words, and
`write_report` puts the experiment on one page.
"""

from typing import TYPE_CHECKING

from ..rooms import open_room

if TYPE_CHECKING:
    from .arms import draw_arms as draw_arms  # right answers and loops of each arm
    from .drawing import VERMILLION as VERMILLION  # the colour of a warning
    from .drawing import WIDTH as WIDTH  # pixels that a figure is laid out for
    from .drawing import Drawing as Drawing  # a figure with its sentence and its table
    from .drawing import mark_names as mark_names  # a sentence as HTML, its names as code
    from .drawing import name_token as name_token  # a token as a label
    from .drawing import show_rows as show_rows  # rows of words as a table
    from .grades import show_grade as show_grade  # a grade with the game's pictures
    from .ladder import draw_ladder as draw_ladder  # size against perplexity and speed
    from .quants import draw_errors as draw_errors  # each module's error by layer
    from .quants import draw_heat as draw_heat  # output errors, kinds by layers
    from .quants import draw_proxies as draw_proxies  # which number foretells the harm
    from .quants import draw_quality as draw_quality  # divergence against extra bytes
    from .quants import draw_types as draw_types  # weight error against bits
    from .report import LEGEND as LEGEND  # the columns of `make_table`, in words
    from .report import make_table as make_table  # a row for each arm
    from .report import pick_samples as pick_samples  # one run of each arm
    from .report import show_sample as show_sample  # such a run with what broke its program
    from .report import write_report as write_report  # the experiment as one HTML file
    from .run_text import STOPS as STOPS  # how a run ended, in words
    from .run_text import decode_steps as decode_steps  # the text of each token
    from .run_text import show_run as show_run  # a run's text with its escapes marked
    from .run_text import show_step as show_step  # the text around one step
    from .stages import StageGrid as StageGrid  # one step as plain arrays
    from .stages import draw_stages as draw_stages  # one step, stage by stage
    from .stages import lay_out as lay_out  # from a step to its arrays
    from .stages import plot_grid as plot_grid  # such arrays as a drawing
    from .suspects import draw_suspects as draw_suspects  # what each override changes
    from .training import draw_losses as draw_losses  # the losses of training runs
else:
    __getattr__, __dir__ = open_room(__name__, __file__)
