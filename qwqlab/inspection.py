"""Moved to qwqlab/models/inspection.py."""
import sys
from .models.inspection import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.models.inspection"]
