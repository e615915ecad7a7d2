"""Moved to qwqlab/quant/evaluation.py."""
import sys
from .quant.evaluation import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.quant.evaluation"]
