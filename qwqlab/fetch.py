"""Moved to qwqlab/models/fetch.py."""
import sys
from .models.fetch import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.models.fetch"]
