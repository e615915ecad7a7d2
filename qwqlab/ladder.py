"""Moved to qwqlab/models/quants.py."""
import sys
from .models.quants import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.models.quants"]
