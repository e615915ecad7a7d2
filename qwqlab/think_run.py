"""Moved to qwqlab/widgets/think_run.py."""
import sys
from .widgets.think_run import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.widgets.think_run"]
