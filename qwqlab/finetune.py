"""Moved to qwqlab/tuning/finetune.py."""
import sys
from .tuning.finetune import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.tuning.finetune"]
