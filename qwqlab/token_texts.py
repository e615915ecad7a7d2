"""Moved to qwqlab/experiments/token_texts.py."""
import sys
from .experiments.token_texts import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.experiments.token_texts"]
