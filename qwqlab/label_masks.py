"""Moved to qwqlab/tuning/label_masks.py."""
import sys
from .tuning.label_masks import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.tuning.label_masks"]
