"""Moved to qwqlab/sampling/nucleus.py."""
import sys
from .sampling.nucleus import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.sampling.nucleus"]
