"""Moved to qwqlab/experiments/sweeps.py."""
import sys
from .experiments.sweeps import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.experiments.sweeps"]
