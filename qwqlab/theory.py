"""Moved to qwqlab/quant/theory.py."""
import sys
from .quant.theory import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.quant.theory"]
