"""Moved to qwqlab/sampling/run.py."""
import sys
from .sampling.run import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.sampling.run"]
