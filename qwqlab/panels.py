"""Moved to qwqlab/widgets/__init__.py."""
import sys
from .widgets import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.widgets"]
