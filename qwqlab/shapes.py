"""Moved to qwqlab/quant/sizes.py."""
import sys
from .quant.sizes import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.quant.sizes"]
