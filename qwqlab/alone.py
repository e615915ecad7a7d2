"""Moved to qwqlab/quant/alone.py."""
import sys
from .quant.alone import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.quant.alone"]
