"""Moved to qwqlab/llamacpp/ggml.py."""
import sys
from .llamacpp.ggml import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.llamacpp.ggml"]
