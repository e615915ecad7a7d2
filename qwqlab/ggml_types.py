"""Moved to qwqlab/llamacpp/ggml_types.py."""
import sys
from .llamacpp.ggml_types import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.llamacpp.ggml_types"]
