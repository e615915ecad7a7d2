"""Moved to qwqlab/sampling/command.py."""
import sys
from .sampling.command import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.sampling.command"]
