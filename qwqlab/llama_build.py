"""Moved to qwqlab/llamacpp/llama_build.py."""
import sys
from .llamacpp.llama_build import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.llamacpp.llama_build"]
