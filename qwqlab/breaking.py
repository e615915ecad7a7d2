"""Moved to qwqlab/experiments/breaking.py."""
import sys
from .experiments.breaking import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.experiments.breaking"]
