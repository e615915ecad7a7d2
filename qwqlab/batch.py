"""Moved to qwqlab/sampling/batch.py."""
import sys
from .sampling.batch import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.sampling.batch"]
