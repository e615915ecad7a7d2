"""Moved to qwqlab/models/hub.py."""
import sys
from .models.hub import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.models.hub"]
