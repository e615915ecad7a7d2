"""Moved to qwqlab/models/stops.py."""
import sys
from .models.stops import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.models.stops"]
