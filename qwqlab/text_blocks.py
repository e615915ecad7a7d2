"""Moved to qwqlab/quant/text_blocks.py."""
import sys
from .quant.text_blocks import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.quant.text_blocks"]
