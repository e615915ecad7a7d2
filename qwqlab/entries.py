"""Moved to qwqlab/models/entries.py."""
import sys
from .models.entries import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.models.entries"]
