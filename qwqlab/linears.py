"""Moved to qwqlab/quant/checkpoint.py."""
import sys
from .quant.checkpoint import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.quant.checkpoint"]
