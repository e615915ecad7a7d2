"""Moved to qwqlab/models/tokenizers.py."""
import sys
from .models.tokenizers import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.models.tokenizers"]
