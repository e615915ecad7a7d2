"""llama.cpp: build it, find it, load a model with it. Importing this room loads no library."""

from typing import TYPE_CHECKING

from ..rooms import open_room

if TYPE_CHECKING:
    from .builds import OPTIONS as OPTIONS  # what llama.cpp is compiled with, and why
    from .builds import SDIST as SDIST  # the source that is compiled, fixed by its hash
    from .builds import TARGETS as TARGETS  # the programs that the set-up builds
    from .builds import capture as capture  # run a program to its end, and take what it wrote
    from .builds import choose_backend as choose_backend  # CPU or CUDA, and why
    from .builds import fetch_archive as fetch_archive  # the source's archive, downloaded
    from .builds import find_nvidia_gpu as find_nvidia_gpu  # the name of the GPU, if there is one
    from .builds import find_source as find_source  # the source's folder, if it is here
    from .builds import module_command as module_command  # `python -m`, safe in any folder
    from .context import Aborted as Aborted  # raised by a decode that was stopped
    from .context import Context as Context  # the cache of many sequences, and their decoding
    from .devices import Device as Device  # a graphics card, and its memory
    from .devices import RpcServer as RpcServer  # a ggml-rpc-server that runs
    from .devices import has_gpu as has_gpu  # whether llama.cpp can compute on a GPU
    from .devices import list_devices as list_devices  # the graphics cards that it can use
    from .devices import serve_rpc as serve_rpc  # a ggml-rpc-server on this machine
    from .ggml import FILE_TYPES as FILE_TYPES  # names of a GGUF's file types, by number
    from .ggml import TENSOR_TYPES as TENSOR_TYPES  # tensor types, by number
    from .ggml import TYPES as TYPES  # the types to which a matrix can be quantised
    from .ggml import Matrix as Matrix  # logits or weights, float32
    from .ggml import bits_of as bits_of  # bits that an element of a type takes
    from .ggml import dequantize as dequantize  # packed rows as numbers again
    from .ggml import fit_type as fit_type  # the type in which rows of a length are stored
    from .ggml import quantize as quantize  # a matrix as packed rows
    from .loading import FLOAT_MAX as FLOAT_MAX  # the largest float that llama.cpp is given
    from .loading import INT_MAX as INT_MAX  # the largest whole number that it takes
    from .loading import LOADING_FLAGS as LOADING_FLAGS  # llama.cpp's flags for a Loading
    from .loading import THREADS as THREADS  # the variable from which threads are taken
    from .loading import Loading as Loading  # how a model is loaded
    from .loading import check_number as check_number  # a number within a range, or a SettingError
    from .loading import count_threads as count_threads  # threads that llama.cpp takes by itself
    from .model import C as C  # the bindings, on the library of our build
    from .model import Closing as Closing  # what must be closed once
    from .model import Handle as Handle  # what llama.cpp must free
    from .model import Model as Model  # a loaded GGUF: weights and vocabulary
    from .prompts import escape as escape  # a text as llama.cpp's -p takes it
    from .prompts import read_prompt as read_prompt  # a prompt out of a file
    from .prompts import unescape as unescape  # what llama.cpp makes of an escaped text
    from .reading import read_float as read_float  # the number that a text begins with
    from .reading import read_int as read_int  # the same, a whole one
    from .tools import STAND_IN as STAND_IN  # the variable that names a device for tests
    from .tools import build as build  # compile what is missing
    from .tools import describe_build as describe_build  # version, compiler and backend in one line
    from .tools import find_build as find_build  # the build that the lab uses
    from .tools import library_dir as library_dir  # the folder of its libraries
    from .tools import point_bindings as point_bindings  # make the bindings load its library
    from .tools import run_tool as run_tool  # run one of its programs to the end
    from .tools import tool as tool  # the path of one of its programs
else:
    __getattr__, __dir__ = open_room(__name__, __file__)
