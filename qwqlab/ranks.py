"""Moved to qwqlab/tuning/ranks.py."""
import sys
from .tuning.ranks import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.tuning.ranks"]
