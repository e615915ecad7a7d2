"""Moved to qwqlab/models/tiny_qwen2.py."""
import sys
from .models.tiny_qwen2 import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.models.tiny_qwen2"]
