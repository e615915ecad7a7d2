"""Moved to qwqlab/tuning/labels.py."""
import sys
from .tuning.labels import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.tuning.labels"]
