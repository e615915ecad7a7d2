"""Moved to qwqlab/models/byte_pairs.py."""
import sys
from .models.byte_pairs import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.models.byte_pairs"]
