"""Moved to qwqlab/stats.py."""
import sys
from .stats import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.stats"]
