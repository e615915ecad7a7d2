"""Moved to qwqlab/sampling/chain.py."""
import sys
from .sampling.chain import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.sampling.chain"]
