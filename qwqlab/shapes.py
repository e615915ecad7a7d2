"""Moved to qwqlab/quant/shapes.py."""
import sys
from .quant.shapes import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.quant.shapes"]
