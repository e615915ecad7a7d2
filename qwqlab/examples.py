"""Moved to qwqlab/tuning/examples.py."""
import sys
from .tuning.examples import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.tuning.examples"]
