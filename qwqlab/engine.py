"""Moved to qwqlab/sampling/engine.py."""
import sys
from .sampling.engine import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.sampling.engine"]
