"""Models: their files, and what the files say.

The catalog knows them, the downloads bring them, and the readers tell what is in them.
"""

from typing import TYPE_CHECKING

from ..rooms import open_room

if TYPE_CHECKING:
    from .catalog import EMBEDDED as EMBEDDED  # SmolLM2-135M, which the set-up brings
    from .catalog import ENTRIES as ENTRIES  # every model in every quant that `fetch` knows
    from .catalog import QWQ as QWQ  # the shape of QwQ-32B
    from .catalog import QWQ_RANKS as QWQ_RANKS  # the byte-pair ranks of its vocabulary
    from .catalog import Entry as Entry  # one model in one quant
    from .catalog import Repository as Repository  # files of a repository on a hub
    from .catalog import Vocabulary as Vocabulary  # the ranks of a tokenizer
    from .catalog import estimate_memory as estimate_memory  # the bytes that a run takes
    from .catalog import lookup as lookup  # a model's entry, by its name
    from .catalog import show_size as show_size  # bytes as GB or MB
    from .downloads import check_disk as check_disk  # refuse where a disk has no room
    from .downloads import fetch_repository as fetch_repository  # bring a repository's files
    from .downloads import find_fetched as find_fetched  # the same, if they are here already
    from .hub import stated_sha256 as stated_sha256  # the hash that a hub stated for its file
    from .local import fetch as fetch  # bring a model here, by its name
    from .local import import_local as import_local  # take in a GGUF file that you have
    from .local import list_local as list_local  # the entries that are on this machine
    from .local import model_path as model_path  # the file of a model that is here
else:
    __getattr__, __dir__ = open_room(__name__, __file__)
