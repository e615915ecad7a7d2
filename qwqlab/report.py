"""Moved to qwqlab/plots/report.py."""
import sys
from .plots.report import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.plots.report"]
