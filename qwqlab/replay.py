"""Moved to qwqlab/sampling/replay.py."""
import sys
from .sampling.replay import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.sampling.replay"]
