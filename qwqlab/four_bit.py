"""Moved to qwqlab/quant/four_bit.py."""
import sys
from .quant.four_bit import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.quant.four_bit"]
