"""Moved to qwqlab/models/requantize.py."""
import sys
from .models.requantize import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.models.requantize"]
