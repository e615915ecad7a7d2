"""Moved to qwqlab/widgets/base.py."""
import sys
from .widgets.base import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.widgets.base"]
