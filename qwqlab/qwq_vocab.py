"""Moved to qwqlab/models/qwq.py."""
import sys
from .models.qwq import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.models.qwq"]
