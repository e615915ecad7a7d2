"""Moved to qwqlab/experiments/code_check.py."""
import sys
from .experiments.code_check import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.experiments.code_check"]
