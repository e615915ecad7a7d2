"""Fine-tuning a model in 4 bits: the recipe, the labels, the run, and its adapter tried."""

from typing import TYPE_CHECKING

from ..rooms import open_room

if TYPE_CHECKING:
    from .adapter import export_adapter as export_adapter  # an adapter as a GGUF
    from .examples import read_examples as read_examples  # training examples from a file
    from .label_masks import label as label  # which tokens of a text are learnt
    from .recipe import Recipe as Recipe  # the article's settings
else:
    __getattr__, __dir__ = open_room(__name__, __file__)
