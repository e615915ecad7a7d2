"""Moved to qwqlab/quant/skip_list.py."""
import sys
from .quant.skip_list import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.quant.skip_list"]
