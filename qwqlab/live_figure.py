"""Moved to qwqlab/widgets/live_figure.py."""
import sys
from .widgets.live_figure import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.widgets.live_figure"]
