"""Moved to qwqlab/llamacpp/llama_options.py."""
import sys
from .llamacpp.llama_options import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.llamacpp.llama_options"]
