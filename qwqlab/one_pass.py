"""Moved to qwqlab/quant/one_pass.py."""
import sys
from .quant.one_pass import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.quant.one_pass"]
