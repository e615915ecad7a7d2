"""Moved to qwqlab/quant/linears.py."""
import sys
from .quant.linears import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.quant.linears"]
