"""Moved to qwqlab/llamacpp/loading.py."""
import sys
from .llamacpp.loading import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.llamacpp.loading"]
