"""Moved to qwqlab/experiments/cluster_worker.py."""
import sys
from .experiments.cluster_worker import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.experiments.cluster_worker"]
