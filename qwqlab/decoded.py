"""Moved to qwqlab/quant/decoded.py."""
import sys
from .quant.decoded import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.quant.decoded"]
