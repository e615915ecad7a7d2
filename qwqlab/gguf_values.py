"""Moved to qwqlab/models/gguf_values.py."""
import sys
from .models.gguf_values import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.models.gguf_values"]
