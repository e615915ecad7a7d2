"""Moved to qwqlab/experiments/penalties.py."""
import sys
from .experiments.penalties import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.experiments.penalties"]
