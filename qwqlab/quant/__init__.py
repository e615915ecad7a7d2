"""A model in few bits: what is lost, what to keep in 16 bits, and what memory it takes."""

from typing import TYPE_CHECKING

from ..rooms import open_room

if TYPE_CHECKING:
    from .checkpoint import HEAD as HEAD  # the name of the head in transformers
    from .checkpoint import Checkpoint as Checkpoint  # a model's files, for transformers
    from .checkpoint import Linear as Linear  # one linear module: name, shape, kind, layer
    from .checkpoint import free_memory as free_memory  # bytes that a program could take now
    from .checkpoint import list_linears as list_linears  # the linear modules of a model
    from .checkpoint import making_a_model as making_a_model  # the lock for making a model
    from .codecs import BnbCodec as BnbCodec  # nf4 and fp4, by bitsandbytes
    from .codecs import find_codec as find_codec  # nf4, fp4 or a type of ggml, by its name
    from .codecs import import_bitsandbytes as import_bitsandbytes  # without its advice
    from .evaluation import Decoded as Decoded  # a model's weights as a codec gives them back
    from .evaluation import Quality as Quality  # perplexity, KL divergence, agreement
    from .evaluation import Reference as Reference  # predictions to compare variants with
    from .evaluation import compare_blocks as compare_blocks  # two variants, block by block
    from .evaluation import evaluate as evaluate  # a model's predictions in a codec
    from .evaluation import measure_alone as measure_alone  # the harm of each module alone
    from .memory import audit as audit  # what a skip list costs
    from .memory import bits_per_weight as bits_per_weight  # of nf4 and fp4
    from .memory import fit_vllm as fit_vllm  # tokens for which vLLM has room on a card
    from .memory import ledger as ledger  # what each part of fine-tuning takes of memory
    from .memory import read_shapes as read_shapes  # how large a model's parts are
    from .module_errors import ModuleError as ModuleError  # what one module lost
    from .module_errors import QuantErrors as QuantErrors  # the errors of all modules
    from .module_errors import peak_memory as peak_memory  # the most that this process held
    from .module_errors import quant_error as quant_error  # measures every module in a codec
    from .selection import METRICS as METRICS  # by which a selection may go
    from .selection import Selection as Selection  # modules to keep, and what they cost
    from .selection import baselines as baselines  # other choices for the same bytes
    from .selection import check_budget as check_budget  # refuses a budget that is none
    from .selection import select as select  # the modules to keep in 16 bits
    from .skip_list import bnb_options as bnb_options  # for transformers' BitsAndBytesConfig
    from .skip_list import load_in_4bit as load_in_4bit  # a model in 4 bits, checked
    from .skip_list import load_quantised as load_quantised  # in 4 bits but for a skip list
    from .skip_list import make_skip_list as make_skip_list  # keeps just these modules
    from .skip_list import read_kept as read_kept  # what a model in 4 bits keeps in 16
    from .skip_list import read_skip_file as read_skip_file  # a skip list from JSON
    from .skip_list import resolve_skip_list as resolve_skip_list  # what it keeps
    from .skip_list import tensor_types as tensor_types  # the same list for llama-quantize
    from .skip_list import verify_skip_list as verify_skip_list  # loads a model and looks
    from .theory import lloyd_max as lloyd_max  # the error of the best fixed levels
    from .theory import on_gaussian as on_gaussian  # a codec's error on a Gaussian
    from .theory import shannon as shannon  # the bound of all codes
    from .weights import write_dynamic as write_dynamic  # a GGUF, some tensors in more bits
    from .weights import write_variant as write_variant  # a GGUF of decoded weights
else:
    __getattr__, __dir__ = open_room(__name__, __file__)
