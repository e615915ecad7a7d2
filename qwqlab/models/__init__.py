"""Models: their files, and what the files say.

The catalog knows them, the downloads bring them, and the readers tell what is in them.
"""

from typing import TYPE_CHECKING

from ..rooms import open_room

if TYPE_CHECKING:
    from .catalog import EMBEDDED as EMBEDDED  # SmolLM2-135M, the model that comes with the lab
    from .catalog import ENTRIES as ENTRIES  # every model in every quant that `fetch` knows
    from .catalog import QWQ as QWQ  # the shape of QwQ-32B
    from .catalog import QWQ_RANKS as QWQ_RANKS  # the byte-pair ranks of its vocabulary
    from .catalog import lookup as lookup  # a model's entry, by its name
    from .catalog import memory as memory  # the bytes that a run of it takes
    from .download import check_disk as check_disk  # refuse where a disk has no room
    from .entries import Entry as Entry  # one model in one quant
    from .entries import Repository as Repository  # files of a repository on a hub
    from .entries import Vocabulary as Vocabulary  # the ranks of a tokenizer
    from .entries import show_size as show_size  # bytes as GB or MB
    from .fetch import import_local as import_local  # take in a GGUF file that you have
    from .fetch import list_local as list_local  # the entries that are on this machine
    from .fetch import model_path as model_path  # the file of a model that is here
    from .hub_fetch import fetch_repository as fetch_repository  # a repository's files
    from .hub_fetch import find_fetched as find_fetched  # the same, if they are here already
else:
    __getattr__, __dir__ = open_room(__name__, __file__)
