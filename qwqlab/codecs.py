"""Moved to qwqlab/quant/codecs.py."""
import sys
from .quant.codecs import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.quant.codecs"]
