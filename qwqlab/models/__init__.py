"""Model files and what they say: GGUF headers, quants, tokenizers, chat templates, stop tokens."""

from typing import TYPE_CHECKING

from ..rooms import open_room

if TYPE_CHECKING:
    from .gguf_file import GGUFInfo as GGUFInfo  # the header of a GGUF file, checked
    from .gguf_file import inspect as inspect  # read and check it
    from .requantize import requantize as requantize  # a copy of a model in another quant
    from .requantize import sweep_copy as sweep_copy  # the copy that the lab sweeps
    from .rendering import Conversation as Conversation  # what a chat template is rendered with
    from .rendering import render as render  # a template and a conversation as a prompt
    from .stops import check_stops as check_stops  # does what pads also stop?
    from .tokenizers import LlamaTokenizer as LlamaTokenizer  # a GGUF's vocabulary in llama.cpp
else:
    __getattr__, __dir__ = open_room(__name__, __file__)
