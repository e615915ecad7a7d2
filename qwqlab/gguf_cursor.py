"""Moved to qwqlab/models/gguf_cursor.py."""
import sys
from .models.gguf_cursor import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.models.gguf_cursor"]
