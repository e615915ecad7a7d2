"""Moved to qwqlab/models/web.py."""
import sys
from .models.web import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.models.web"]
