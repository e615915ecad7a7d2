"""Moved to qwqlab/quant/module_error.py."""
import sys
from .quant.module_error import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.quant.module_error"]
