"""Moved to qwqlab/llamacpp/context.py."""
import sys
from .llamacpp.context import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.llamacpp.context"]
