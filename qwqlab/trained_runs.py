"""Moved to qwqlab/tuning/adapter.py."""
import sys
from .tuning.adapter import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.tuning.adapter"]
