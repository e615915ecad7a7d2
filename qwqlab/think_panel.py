"""Moved to qwqlab/widgets/think_panel.py."""
import sys
from .widgets.think_panel import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.widgets.think_panel"]
