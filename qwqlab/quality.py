"""Moved to qwqlab/quant/quality.py."""
import sys
from .quant.quality import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.quant.quality"]
