"""Moved to qwqlab/experiments/metrics.py."""
import sys
from .experiments.metrics import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.experiments.metrics"]
