"""Moved to qwqlab/quant/evaluate.py."""
import sys
from .quant.evaluate import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.quant.evaluate"]
