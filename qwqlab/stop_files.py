"""Moved to qwqlab/models/stop_files.py."""
import sys
from .models.stop_files import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.models.stop_files"]
