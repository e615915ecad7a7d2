"""Many runs, counted: a grid of them in a store, what is measured in each, and what it shows."""

from typing import TYPE_CHECKING

from ..rooms import open_room

if TYPE_CHECKING:
    from .breaking import find_break as find_break  # the token that broke a program
    from .cluster import cut_grid as cut_grid  # how many runs a piece of a grid has
    from .cluster import sweep_on as sweep_on  # `sweep` on the workers of a Dask cluster
    from .cluster_worker import PLACES as PLACES  # the topic that names each run when it is done
    from .code_check import Block as Block  # a fenced block of a text
    from .code_check import check_code as check_code  # does a program parse and bind its names?
    from .code_check import check_text as check_text  # `check_code` of a text's first block
    from .code_check import find_blocks as find_blocks  # the fenced blocks of a text
    from .code_check import is_valid as is_valid  # `check_text` as True or False
    from .divergence import CONTEXTS as CONTEXTS  # contexts in which to measure predictions
    from .divergence import measure_files as measure_files  # KL of other files of one model
    from .divergence import measure_logits as measure_logits  # KL of overrides of one file
    from .loops import find_loop as find_loop  # the cycle in which tokens or a text end
    from .metrics import loop_start as loop_start  # the token at which a run's loop begins
    from .metrics import measure as measure  # all that is counted in a run
    from .penalties import CHATML as CHATML  # the form of the prompts
    from .penalties import LOADING as LOADING  # how models are loaded for sweeps
    from .penalties import ArmResult as ArmResult  # what one arm of the experiment did
    from .penalties import Plan as Plan  # how many prompts, seeds and tokens an arm has
    from .penalties import count as count  # runs of the experiment into arms
    from .penalties import list_arms as list_arms  # the arms by name
    from .penalties import open_engine as open_engine  # an engine for sweeps
    from .penalties import plan_requests as plan_requests  # every run of the experiment
    from .penalties import read_prompts as read_prompts  # the prompts of data/prompts
    from .penalties import run_experiment as run_experiment  # penalties and order, taken apart
    from .penalties import summarize as summarize  # what the arms show, in sentences
    from .store import RunStore as RunStore  # every run with its measures, in one file
    from .suspects import Conduct as Conduct  # valid code and loops before and after an override
    from .suspects import Suspect as Suspect  # what is overridden, in words and as a Loading
    from .suspects import list_suspects as list_suspects  # YaRN, the epsilon, and a control
    from .suspects import measure_conduct as measure_conduct  # the same runs with and without
    from .sweeps import OnRun as OnRun  # called with each run that is done
    from .sweeps import Source as Source  # the model's file, its loading and the build
    from .sweeps import sweep as sweep  # runs what a store does not hold yet
    from .token_texts import list_pieces as list_pieces  # the tokens that are whole characters
    from .token_texts import make_texts as make_texts  # made texts that try a tokenizer
    from .token_texts import read_corpus as read_corpus  # texts by hand that try a tokenizer
    from .tokenizers_compared import CAUSES as CAUSES  # why two tokenizers part, in words
else:
    __getattr__, __dir__ = open_room(__name__, __file__)
