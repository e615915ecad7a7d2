"""Moved to qwqlab/models/download.py."""
import sys
from .models.download import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.models.download"]
