"""Moved to qwqlab/llamacpp/tools.py."""
import sys
from .llamacpp.tools import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.llamacpp.tools"]
