"""Moved to qwqlab/models/hub_fetch.py."""
import sys
from .models.hub_fetch import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.models.hub_fetch"]
