"""Many runs, counted: a grid of them in a store, what is measured in each, and what it shows."""

from typing import TYPE_CHECKING

from ..rooms import open_room

if TYPE_CHECKING:
    from .cluster import PLACES as PLACES  # the topic that names each run when it is done
    from .cluster import cut_grid as cut_grid  # how many runs a piece of a grid has
    from .cluster import start_cluster as start_cluster  # on this machine, for you alone
    from .cluster import sweep_on as sweep_on  # `sweep` on the workers of a Dask cluster
    from .cluster import write_keys as write_keys  # keys for a cluster of several machines
    from .code_check import check_code as check_code  # does a program parse and bind its names?
    from .code_check import check_run as check_run  # `check_code` of a run's program
    from .code_check import check_text as check_text  # `check_code` of a text's first block
    from .code_check import find_break as find_break  # the token that broke a program
    from .counts import MEASURES as MEASURES  # what is counted, and of which kind of task
    from .counts import ArmResult as ArmResult  # the outcomes of one arm, run by run
    from .counts import Evidence as Evidence  # what was measured on one model
    from .counts import compare as compare  # two arms, over the same prompts and seeds
    from .counts import count_arms as count_arms  # runs of the experiment into arms
    from .counts import list_evidence as list_evidence  # of all models, for a kind of task
    from .counts import read_evidence as read_evidence  # a table of data/evidence
    from .counts import say_difference as say_difference  # in words, with its interval
    from .counts import summarize as summarize  # what the arms show, in sentences
    from .metrics import RunMetrics as RunMetrics  # what is counted in a run
    from .metrics import measure as measure  # all that is counted in a run: code, loop, escapes
    from .pairs import PAIRS as PAIRS  # the same prompt and seed with a fault, and without
    from .pairs import Pair as Pair  # two settings for one prompt and one seed
    from .pairs import has_fault as has_fault  # does a run loop, or hold no valid program?
    from .penalty_and_order import CHATML as CHATML  # the form of the prompts
    from .penalty_and_order import LOADING as LOADING  # how models are loaded for sweeps
    from .penalty_and_order import Grid as Grid  # how much of each kind of task each arm has
    from .penalty_and_order import Part as Part  # prompts, seeds and tokens of one kind of task
    from .penalty_and_order import list_arms as list_arms  # the arms by name
    from .penalty_and_order import list_more_arms as list_more_arms  # those of the full one alone
    from .penalty_and_order import may_think as may_think  # whether a model's template lets it
    from .penalty_and_order import open_engine as open_engine  # an engine for sweeps
    from .penalty_and_order import (
        plan_grid as plan_grid,  # the quick grid or the full, with budgets
    )
    from .penalty_and_order import plan_requests as plan_requests  # every run of the experiment
    from .penalty_and_order import read_prompts as read_prompts  # the prompts of data/prompts
    from .penalty_and_order import (
        run_experiment as run_experiment,  # penalties and order, taken apart
    )
    from .store import RunStore as RunStore  # every run with its metrics, in one file
    from .suspects import CONTEXTS as CONTEXTS  # contexts in which to measure predictions
    from .suspects import Conduct as Conduct  # valid code and loops before and after an override
    from .suspects import list_suspects as list_suspects  # YaRN, the epsilon, and a control
    from .suspects import measure_conduct as measure_conduct  # the same runs with and without
    from .suspects import measure_files as measure_files  # KL of other files of one model
    from .suspects import measure_logits as measure_logits  # KL of overrides of one file
    from .suspects import plan_paired_requests as plan_paired_requests  # runs for both arms
    from .sweeps import Source as Source  # the model's file, its loading and the build
    from .sweeps import sweep as sweep  # run what a store does not hold yet
    from .tasks import Task as Task  # a prompt, and what a right answer to it is
    from .tasks import passes as passes  # does a program pass its tests in the sandbox?
    from .tasks import read_tasks as read_tasks  # the lab's prompts of one kind
    from .tokenizers_compared import CAUSES as CAUSES  # why two tokenizers differ, in words
    from .tokenizers_compared import compare_tokenizers as compare_tokenizers  # and where
    from .tokenizers_compared import list_pieces as list_pieces  # tokens that are characters
    from .tokenizers_compared import make_texts as make_texts  # made texts that try a tokenizer
    from .tokenizers_compared import read_corpus as read_corpus  # such texts, written by hand
    from .vllm import BATCH_TOKENS as BATCH_TOKENS  # tokens that vLLM reads at once
    from .vllm import UTILIZATION as UTILIZATION  # the share of a card that vLLM takes
    from .vllm import VLLM_PACKAGES as VLLM_PACKAGES  # what to install for it
    from .vllm import complete_on_vllm as complete_on_vllm  # ask a server of vLLM for a text
    from .vllm import find_unseen_by_vllm as find_unseen_by_vllm  # skips that vLLM overlooks
    from .vllm import translate_for_vllm as translate_for_vllm  # a request in vLLM's terms
    from .vllm import vllm_command as vllm_command  # the command that serves a model
else:
    __getattr__, __dir__ = open_room(__name__, __file__)
