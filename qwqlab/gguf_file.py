"""Moved to qwqlab/models/gguf_file.py."""
import sys
from .models.gguf_file import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.models.gguf_file"]
