"""Moved to qwqlab/models/chat.py."""
import sys
from .models.chat import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.models.chat"]
