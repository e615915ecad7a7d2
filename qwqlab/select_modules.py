"""Moved to qwqlab/quant/select_modules.py."""
import sys
from .quant.select_modules import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.quant.select_modules"]
