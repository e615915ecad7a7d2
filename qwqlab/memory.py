"""Moved to qwqlab/quant/memory.py."""
import sys
from .quant.memory import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.quant.memory"]
