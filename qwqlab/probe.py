"""Moved to qwqlab/sampling/probe.py."""
import sys
from .sampling.probe import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.sampling.probe"]
