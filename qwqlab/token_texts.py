"""Moved to qwqlab/experiments/tokenizers_compared.py."""
import sys
from .experiments.tokenizers_compared import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.experiments.tokenizers_compared"]
