"""Moved to qwqlab/tuning/trained_runs.py."""
import sys
from .tuning.trained_runs import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.tuning.trained_runs"]
