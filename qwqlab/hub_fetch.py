"""Moved to qwqlab/models/downloads.py."""
import sys
from .models.downloads import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.models.downloads"]
