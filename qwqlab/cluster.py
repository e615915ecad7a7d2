"""Moved to qwqlab/experiments/cluster.py."""
import sys
from .experiments.cluster import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.experiments.cluster"]
