"""Model files and their contents: GGUF headers, quants, tokenizers, templates, stop tokens."""

from typing import TYPE_CHECKING

from ..rooms import open_room

if TYPE_CHECKING:
    from .catalog import EMBEDDED as EMBEDDED  # SmolLM2-135M, which the set-up fetches
    from .catalog import ENTRIES as ENTRIES  # every model in every quant that `fetch` knows
    from .catalog import QWQ as QWQ  # the shape of QwQ-32B
    from .catalog import QWQ_RANKS as QWQ_RANKS  # the byte-pair ranks of its vocabulary
    from .catalog import Entry as Entry  # one model in one quant
    from .catalog import Repository as Repository  # files of a repository on a hub
    from .catalog import lookup as lookup  # a model's entry, by its name
    from .chat import RENDER_MEMORY as RENDER_MEMORY  # bytes that a rendering may take
    from .chat import RENDER_SECONDS as RENDER_SECONDS  # and its time
    from .chat import TEMPLATES as TEMPLATES  # names of the article's two templates
    from .chat import Conversation as Conversation  # messages and tools for a template
    from .chat import diff_templates as diff_templates  # how one differs from the article's
    from .chat import explain_template as explain_template  # which one it is, in a sentence
    from .chat import identify_template as identify_template  # the article's equal to it
    from .chat import read_conversation as read_conversation  # from JSON files
    from .chat import read_specials as read_specials  # the special tokens that it may ask for
    from .chat import read_template as read_template  # by name, or from a file
    from .chat import render as render  # the prompt that a template makes of a conversation
    from .chat import render_many as render_many  # many prompts from one process
    from .chat import render_with_llama_cpp as render_with_llama_cpp  # by llama-completion
    from .downloads import fetch_repository as fetch_repository  # download a repository's files
    from .gguf import SMALL as SMALL  # bytes up to which a model is read into memory whole
    from .gguf import GGUFInfo as GGUFInfo  # the header of a GGUF file
    from .gguf import hash_model as hash_model  # sha256 of a model, in one file or in parts
    from .gguf import inspect as inspect  # read a header
    from .gguf import list_parts as list_parts  # the files of a model
    from .gguf import read_description as read_description  # a header for JSON
    from .gguf import show_description as show_description  # and for a person
    from .local import fetch as fetch  # download a model, by its name
    from .local import import_local as import_local  # take in a GGUF file that you have
    from .local import list_local as list_local  # the entries that are on this machine
    from .local import model_path as model_path  # the file of a model on this machine
    from .quants import RungResult as RungResult  # size, speed and perplexity of a quant
    from .quants import check_quant as check_quant  # a quant's name as llama.cpp writes it
    from .quants import climb as climb  # make and measure a ladder of quants
    from .quants import compare_rungs as compare_rungs  # perplexity against another rung's
    from .quants import copy_path as copy_path  # where a copy lies
    from .quants import estimate_copy as estimate_copy  # the bytes of a copy of one type
    from .quants import is_embedded as is_embedded  # whether it is the embedded model, or a copy
    from .quants import measure_rung as measure_rung  # one model file
    from .quants import read_record as read_record  # how the lab made a copy
    from .quants import requantize as requantize  # a copy in another quant
    from .quants import run_quantize as run_quantize  # llama-quantize, with the lab's errors
    from .quants import sweep_copy as sweep_copy  # the copy on which sweeps run
    from .qwq import QWQ_NAME as QWQ_NAME  # the name of QwQ's tokenizer
    from .qwq import QWQ_PATTERN as QWQ_PATTERN  # the expression that splits its texts
    from .qwq import build_qwq as build_qwq  # its folder, made from the ranks
    from .qwq import find_qwq_token as find_qwq_token  # the id of <think> and its like
    from .room import check_room as check_room  # refuse what memory or disk has no room for
    from .room import choose_model as choose_model  # the best model that is here and fits
    from .room import estimate_memory as estimate_memory  # the bytes that a run takes
    from .room import estimate_run as estimate_run  # the same of a file, by its header
    from .room import measure_room as measure_room  # memory that is free on cards and computer
    from .room import place as place  # the layers of any model that fit on a card
    from .room import place_layers as place_layers  # those of one in the catalog
    from .room import share_layers as share_layers  # what each of several machines holds
    from .stops import StopCheck as StopCheck  # the verdict of check_stops
    from .stops import check_stops as check_stops  # will a model trained with it stop?
    from .tiny_qwen2 import Yarn as Yarn  # YaRN's numbers
    from .tiny_qwen2 import compute_tiny_logits as compute_tiny_logits  # by the equations
    from .tiny_qwen2 import make_tiny_weights as make_tiny_weights  # random, by a seed
    from .tiny_qwen2 import run_tiny_model as run_tiny_model  # by llama.cpp
    from .tiny_qwen2 import write_tiny_model as write_tiny_model  # as a GGUF
    from .tokenizers import LlamaTokenizer as LlamaTokenizer  # a GGUF's, in llama.cpp
    from .tokenizers import TransformersTokenizer as TransformersTokenizer  # in transformers
    from .tokenizers import import_transformers as import_transformers  # without its advice
    from .tokenizers import offline as offline  # keep transformers from asking a hub
    from .tokenizers import open_tokenizer as open_tokenizer  # in the engine of that name
    from .tokenizers import readable as readable  # a folder as transformers can read it
    from .trial import check_loads as check_loads  # can llama.cpp use a file?
    from .trial import check_tokenizes as check_tokenizes  # can llama.cpp read its vocabulary?
else:
    __getattr__, __dir__ = open_room(__name__, __file__)
