"""Moved to qwqlab/errors.py."""
import sys
from .errors import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.errors"]
