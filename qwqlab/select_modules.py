"""Moved to qwqlab/quant/selection.py."""
import sys
from .quant.selection import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.quant.selection"]
