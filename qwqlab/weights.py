"""Moved to qwqlab/quant/weights.py."""
import sys
from .quant.weights import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.quant.weights"]
