"""Moved to qwqlab/experiments/store.py."""
import sys
from .experiments.store import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.experiments.store"]
