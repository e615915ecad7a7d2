"""Moved to qwqlab/files.py."""
import sys
from .files import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.files"]
