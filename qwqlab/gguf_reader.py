"""Moved to qwqlab/models/gguf_reader.py."""
import sys
from .models.gguf_reader import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.models.gguf_reader"]
