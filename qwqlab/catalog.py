"""Moved to qwqlab/models/catalog.py."""
import sys
from .models.catalog import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.models.catalog"]
