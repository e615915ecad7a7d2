"""llama.cpp: build it, find it, load a model with it. Importing this room loads no library."""

from typing import TYPE_CHECKING

from ..rooms import open_room

if TYPE_CHECKING:
    from .context import Aborted as Aborted  # raised by a decode that was stopped
    from .context import Context as Context  # the cache of many sequences, and their decoding
    from .ggml import TYPES as TYPES  # the types that llama.cpp quantises a matrix to
    from .ggml import dequantize as dequantize  # packed rows as numbers again
    from .ggml import fit_type as fit_type  # the type that rows of a given length are stored in
    from .ggml import quantize as quantize  # a matrix as packed rows
    from .ggml_types import FILE_TYPES as FILE_TYPES  # names of a GGUF's file types
    from .ggml_types import REMOVED_TYPES as REMOVED_TYPES  # tensor types that llama.cpp dropped
    from .ggml_types import TENSOR_TYPES as TENSOR_TYPES  # tensor types, by their number
    from .ggml_types import bits_of as bits_of  # bits that an element of a type takes
    from .llama_options import OPTIONS as OPTIONS  # what llama.cpp is compiled with, and why
    from .llama_options import TARGETS as TARGETS  # the programs that the set-up builds
    from .llama_options import choose_backend as choose_backend  # CPU or CUDA, and why
    from .llama_options import find_nvidia_gpu as find_nvidia_gpu  # the GPU's name
    from .llama_source import SDIST as SDIST  # the source that is compiled, fixed by its hash
    from .llama_source import bring_archive as bring_archive  # download that source
    from .llama_source import find_source as find_source  # its folder, unpacked
    from .loading import THREADS as THREADS  # the variable from which threads are taken
    from .loading import Loading as Loading  # how a model is loaded
    from .loading import count_threads as count_threads  # threads that llama.cpp takes by itself
    from .model import C as C  # the bindings, with the library of our build
    from .model import Closing as Closing  # what must be closed once
    from .model import Handle as Handle  # what llama.cpp must free
    from .model import Matrix as Matrix  # logits and weights, float32
    from .model import Model as Model  # a loaded GGUF: weights and vocabulary
    from .model import has_gpu as has_gpu  # whether llama.cpp can compute on a GPU
    from .prompts import escape as escape  # a text as llama.cpp's -p takes it
    from .prompts import read_prompt as read_prompt  # a prompt's file
    from .prompts import unescape as unescape  # what llama.cpp makes of an escaped text
    from .tools import build as build  # compile what is missing
    from .tools import describe_build as describe_build  # version, compiler and backend, one line
    from .tools import library_dir as library_dir  # the folder of its libraries
    from .tools import run_tool as run_tool  # run one of llama.cpp's programs to its end
    from .tools import tool as tool  # the path of one of its programs
else:
    __getattr__, __dir__ = open_room(__name__, __file__)
