"""Moved to qwqlab/sampling/thinking.py."""
import sys
from .sampling.thinking import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.sampling.thinking"]
