"""Moved to qwqlab/quant/module_errors.py."""
import sys
from .quant.module_errors import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.quant.module_errors"]
