"""Moved to qwqlab/llamacpp/model.py."""
import sys
from .llamacpp.model import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.llamacpp.model"]
