"""Moved to qwqlab/quant/journal.py."""
import sys
from .quant.journal import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.quant.journal"]
