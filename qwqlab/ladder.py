"""Moved to qwqlab/models/ladder.py."""
import sys
from .models.ladder import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.models.ladder"]
