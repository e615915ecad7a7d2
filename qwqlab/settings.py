"""Moved to qwqlab/sampling/settings.py."""
import sys
from .sampling.settings import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.sampling.settings"]
