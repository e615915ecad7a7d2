"""Moved to qwqlab/sampling/inert.py."""
import sys
from .sampling.inert import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.sampling.inert"]
