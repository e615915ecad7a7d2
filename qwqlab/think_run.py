"""Moved to qwqlab/widgets/think.py."""
import sys
from .widgets.think import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.widgets.think"]
