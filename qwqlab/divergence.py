"""Moved to qwqlab/experiments/suspects.py."""
import sys
from .experiments.suspects import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.experiments.suspects"]
