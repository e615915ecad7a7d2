"""Moved to qwqlab/plots/drawing.py."""
import sys
from .plots.drawing import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.plots.drawing"]
