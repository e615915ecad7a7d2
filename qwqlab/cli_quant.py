"""Moved to qwqlab/cli/quant.py."""
import sys
from .cli.quant import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.cli.quant"]
