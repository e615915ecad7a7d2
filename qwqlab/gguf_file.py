"""Moved to qwqlab/models/gguf.py."""
import sys
from .models.gguf import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.models.gguf"]
