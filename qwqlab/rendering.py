"""Moved to qwqlab/models/rendering.py."""
import sys
from .models.rendering import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.models.rendering"]
