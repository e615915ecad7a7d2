"""Moved to qwqlab/models/trial.py."""
import sys
from .models.trial import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.models.trial"]
