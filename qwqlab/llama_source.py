"""Moved to qwqlab/llamacpp/llama_source.py."""
import sys
from .llamacpp.llama_source import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.llamacpp.llama_source"]
