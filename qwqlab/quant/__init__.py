"""A model in few bits: what is lost, what to keep in 16 bits, and what memory it takes."""

from typing import TYPE_CHECKING

from ..rooms import open_room

if TYPE_CHECKING:
    from .checkpoint import Checkpoint as Checkpoint  # a model's files, for transformers
    from .codecs import find_codec as find_codec  # nf4, fp4 or a type of ggml, by its name
    from .evaluate import Reference as Reference  # predictions to compare variants with
    from .memory import ledger as ledger  # what each part of fine-tuning takes of memory
    from .quantize import quant_error as quant_error  # the errors of every module
    from .select_modules import baselines as baselines  # other choices for the same bytes
    from .select_modules import select as select  # the modules to keep in 16 bits
    from .skip_list import audit as audit  # what a skip list costs
else:
    __getattr__, __dir__ = open_room(__name__, __file__)
