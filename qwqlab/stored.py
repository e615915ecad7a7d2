"""Moved to qwqlab/experiments/stored.py."""
import sys
from .experiments.stored import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.experiments.stored"]
