"""Moved to qwqlab/widgets/controls.py."""
import sys
from .widgets.controls import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.widgets.controls"]
