"""Moved to qwqlab/experiments/vllm.py."""
import sys
from .experiments.vllm import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.experiments.vllm"]
