"""Moved to qwqlab/tuning/training.py."""
import sys
from .tuning.training import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.tuning.training"]
