"""Fine-tuning a model in 4 bits: the recipe, the labels, the run, and its adapter tried."""

from typing import TYPE_CHECKING

from ..rooms import open_room

if TYPE_CHECKING:
    from .adapter import GREEDY as GREEDY  # the sampling by which answers are scored
    from .adapter import compare_with_peft as compare_with_peft  # an exported adapter checked
    from .adapter import export_adapter as export_adapter  # an adapter as a GGUF
    from .adapter import measure_skill as measure_skill  # how many answers are right
    from .adapter import measure_stopping as measure_stopping  # how often answers end
    from .adapter import merge_adapter as merge_adapter  # an adapter added to the weights
    from .engines import find_engine as find_engine  # peft or unsloth
    from .engines import free_on_device as free_on_device  # bytes free where one would train
    from .engines import is_main as is_main  # whether this process writes and prints
    from .engines import load_peft as load_peft  # a model in 4 bits with adapters
    from .engines import name_device as name_device  # the card's name, or the processor's
    from .engines import why_no_unsloth as why_no_unsloth  # and the remedy
    from .examples import Example as Example  # an instruction, an input, an output
    from .examples import Turn as Turn  # an answer of a chat, and the prompt before it
    from .examples import find_examples as find_examples  # a set by its name, or a file
    from .examples import read_chats as read_chats  # chats from a file
    from .examples import read_examples as read_examples  # Alpaca's examples from a file
    from .examples import render_turns as render_turns  # chats by a model's template
    from .examples import score as score  # an answer against what was asked for
    from .labels import COLLATORS as COLLATORS  # trl and transformers
    from .labels import TURNS as TURNS  # two answers for a table of labels
    from .labels import encode as encode  # an example as token ids and labels
    from .labels import find_token as find_token  # a special token by its text
    from .labels import label as label  # which tokens of a text are learnt
    from .labels import make_collator as make_collator  # rows into a batch with labels
    from .recipe import Recipe as Recipe  # the article's settings
    from .training import ADAPTER as ADAPTER  # a run's folder keeps its adapter under it
    from .training import FineTuned as FineTuned  # what came of a run
    from .training import Step as Step  # one step of the optimiser
    from .training import finetune as finetune  # train adapters on a model in 4 bits
    from .training import read_steps as read_steps  # the steps of a run's folder
else:
    __getattr__, __dir__ = open_room(__name__, __file__)
