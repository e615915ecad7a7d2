"""Moved to qwqlab/llamacpp/builds.py."""
import sys
from .llamacpp.builds import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.llamacpp.builds"]
