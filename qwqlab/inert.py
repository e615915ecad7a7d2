"""Moved to qwqlab/sampling/sampling.py."""
import sys
from .sampling.sampling import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.sampling.sampling"]
