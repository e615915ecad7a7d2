"""Moved to qwqlab/quant/variant.py."""
import sys
from .quant.variant import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.quant.variant"]
