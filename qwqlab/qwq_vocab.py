"""Moved to qwqlab/models/qwq_vocab.py."""
import sys
from .models.qwq_vocab import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.models.qwq_vocab"]
