"""Moved to qwqlab/models/wheel.py."""
import sys
from .models.wheel import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.models.wheel"]
