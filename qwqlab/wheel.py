"""Moved to qwqlab/models/local.py."""
import sys
from .models.local import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.models.local"]
