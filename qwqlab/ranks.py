"""Moved to qwqlab/tuning/engines.py."""
import sys
from .tuning.engines import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.tuning.engines"]
