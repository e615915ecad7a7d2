"""Moved to qwqlab/quant/quantize.py."""
import sys
from .quant.quantize import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.quant.quantize"]
