"""Moved to qwqlab/experiments/divergence.py."""
import sys
from .experiments.divergence import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.experiments.divergence"]
